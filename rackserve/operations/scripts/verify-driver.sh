# verify-driver.sh DIGEST UNITS: start what belongs to the driver, have gpu-ready look at all of it, and only then write
# down that the driver is as planned. UNITS is one word; those that no package brought are left out.

state=/var/lib/rackserve
gpu_ready=/usr/libexec/rackserve/gpu-ready

waiting() {
  echo "waiting for the GPUs"
}

start_units() {
  for unit in $units; do
    systemctl cat "$unit" >/dev/null 2>&1 || continue
    # Some are started by others and cannot be enabled. Uninstalling disables what was not enabled before.
    if [ "$(systemctl is-enabled "$unit" 2>/dev/null)" = disabled ]; then
      grep -qsx "$unit" "$state/units-enabled" || echo "$unit" >>"$state/units-enabled"
      systemctl enable --quiet "$unit" 2>/dev/null
    fi
    systemctl is-active --quiet "$unit" && continue
    systemctl reset-failed "$unit" 2>/dev/null
    with_heartbeat waiting systemctl start "$unit" && continue
    echo "$unit does not start: $(journalctl --unit "$unit" --lines 5 --output cat --no-pager | tr '\n' ' ')" >&2
    failed=yes
  done
}

main() {
  digest=$1 units=$2 failed=
  mkdir -p "$state"
  systemctl daemon-reload
  systemctl enable --quiet gpu-ready.service || return 1
  start_units
  systemctl reset-failed gpu-ready.service 2>/dev/null
  if ! with_heartbeat waiting systemctl start gpu-ready.service 2>/dev/null; then
    said=$("$gpu_ready" --check 2>&1)
    echo "${said:-$(journalctl --unit gpu-ready.service --lines 5 --output cat --no-pager)}" >&2
    return 1
  fi
  answer=$("$gpu_ready" --check --json) || return 1
  [ -z "$failed" ] || return 1
  printf '{"digest": "%s", "ready": %s}\n' "$digest" "$answer" >"$state/driver.json.new"
  sync "$state/driver.json.new" && mv -fT "$state/driver.json.new" "$state/driver.json" || return 1
  rm -f "$state/driver-reboot"
  # Services that had to stop for the change of drivers, and now find the new one.
  if [ -e "$state/driver-stopped" ]; then
    while read -r unit; do systemctl start --no-block "$unit"; done <"$state/driver-stopped"
    rm -f "$state/driver-stopped"
  fi
}

main "$@" </dev/null
