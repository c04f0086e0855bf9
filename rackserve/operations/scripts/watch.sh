# watch.sh TIMER: have a running service's health check as it is on disk, and at work. The service itself goes on.

main() {
  systemctl daemon-reload && systemctl restart "$1"
}

main "$@" </dev/null
