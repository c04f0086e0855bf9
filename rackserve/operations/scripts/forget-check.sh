# forget-check.sh CHECK: have nothing left of what asks for a service whether its release compiles. The service stays.
set -e

main() {
  check=$1
  systemctl stop "$check" 2>/dev/null || :
  # Else the host counts as degraded for what nobody asks any more.
  systemctl reset-failed "$check" 2>/dev/null || :
  # Last: as long as it is there, the next run knows that there is something left to do.
  rm -rf "/etc/systemd/system/$check.d"
  systemctl daemon-reload
}

main "$@" </dev/null
