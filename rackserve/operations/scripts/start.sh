# start.sh UNIT SECONDS: restart a unit and wait until it serves; on failure stop it and show what it said.

main() {
  unit=$1 deadline=$(( $(date +%s) + $2 ))
  systemctl daemon-reload
  systemctl enable --quiet "$unit"
  systemctl reset-failed "$unit" 2>/dev/null
  started=$(date '+%Y-%m-%d %H:%M:%S')
  # Not waited for by systemctl: a silent minute is where firewalls drop idle ssh connections.
  systemctl restart --no-block "$unit" || return 1
  last=
  while :; do
    # shellcheck disable=SC2046 # two words: ActiveState and SubState
    set -- $(systemctl show -p ActiveState -p SubState --value "$unit")
    [ "$1 $2" = "$last" ] || echo "$unit: $1 ($2)"
    last="$1 $2"
    case $last in
      "active running") [ -n "$(systemctl list-jobs --no-legend "$unit")" ] || return 0 ;;
      failed* | "activating auto-restart") break ;;
      # Dead with nothing queued: systemd gave up before it started anything, for example on a failed dependency.
      inactive*) [ -n "$(systemctl list-jobs --no-legend "$unit")" ] || break ;;
    esac
    if [ "$(date +%s)" -ge "$deadline" ]; then
      echo "$unit: not serving in time, last state $last" >&2
      break
    fi
    sleep 1
  done
  systemctl stop "$unit"
  echo "$unit does not serve; its last words:" >&2
  journalctl --unit "$unit" --since "$started" --lines 40 --output cat --no-pager >&2
  return 1
}

main "$@" </dev/null
