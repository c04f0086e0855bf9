# stop.sh UNIT: stop a unit, which first finishes what it was asked.

said_so_far() {
  echo "$unit: $(systemctl show -p SubState --value "$unit")"
}

main() {
  unit=$1
  with_heartbeat said_so_far systemctl stop "$unit"
}

main "$@" </dev/null
