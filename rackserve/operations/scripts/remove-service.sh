# remove-service.sh NAME: stop a service and remove its unit, key, user and scratch folders. Models stay.
set -e

main() {
  name=$1 unit=rackserve@$1.service
  systemctl disable --quiet --now "$unit" 2>/dev/null || systemctl stop "$unit"
  rm -rf "/etc/rackserve/credentials/$name" "/var/lib/rackserve/$name" "/var/cache/rackserve/$name"
  if id "rackserve-$name" >/dev/null 2>&1; then userdel "rackserve-$name"; fi
  # Last: as long as the drop-in is there, the next run knows that there is something left to remove.
  rm -rf "/etc/systemd/system/$unit.d"
  systemctl daemon-reload
  systemctl reset-failed "$unit" 2>/dev/null || :
}

main "$@" </dev/null
