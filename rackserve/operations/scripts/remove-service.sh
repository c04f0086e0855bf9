# remove-service.sh NAME: stop a service and remove its unit, key, user and scratch folders. Models stay.
set -e

# Where podman is gone nothing makes a unit of its file any more: it cannot be stopped, and need not be.
stop() {
  case $(systemctl show -p ActiveState --value "$unit") in
    inactive | failed) ;;
    *) systemctl stop "$unit" ;;
  esac
}

main() {
  name=$1 unit=rackserve@$1.service
  systemctl disable --quiet --now "$unit" 2>/dev/null || stop
  # Its health check goes with the service, unless that had stopped by itself; what asks whether it compiles does not.
  systemctl stop "rackserve-health@$name.timer" "rackserve-health@$name.service" "rackserve-check@$name.service" \
    2>/dev/null || :
  rm -rf "/etc/systemd/system/rackserve-ray@$name.service" "/etc/systemd/system/rackserve-ray@$name.service.d"
  rm -rf "/etc/rackserve/credentials/$name" "/var/lib/rackserve/$name" "/var/cache/rackserve/$name"
  rm -rf "/etc/rackserve/ollama/$name" "/etc/rackserve/lmstudio/$name.json"
  rm -f "/etc/rackserve/services/$name".* "/run/rackserve/$name.env" "/run/rackserve-health/$name.json"
  # Left where a host lost its power.
  if command -v podman >/dev/null; then podman secret rm "rackserve-$name" >/dev/null 2>&1 || :; fi
  if id "rackserve-$name" >/dev/null 2>&1; then userdel "rackserve-$name"; fi
  # Last: as long as one of these is there, the next run knows that there is something left to remove.
  rm -rf "/etc/systemd/system/rackserve-check@$name.service.d" "/etc/systemd/system/$unit.d"
  rm -f "/etc/containers/systemd/rackserve@$name.container"
  systemctl daemon-reload
  # Else the host counts as degraded for what is no longer there.
  systemctl reset-failed "$unit" "rackserve-health@$name.service" "rackserve-ray@$name.service" \
    "rackserve-check@$name.service" 2>/dev/null || :
}

main "$@" </dev/null
