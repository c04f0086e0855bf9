# load-mac.sh ROOT NAME SECONDS: have launchd run a service's daemon as it is on disk, and its watch, and wait until it
# serves; on failure take it out again and show what it said. SECONDS: that it may take to stop. ROOT is empty on a host.

# bring_in LABEL: 5 and 37 come for some seconds after a job of that name went, and 5 where it is loaded all the same.
bring_in() {
  # What somebody has disabled would be refused (119); that is kept beside the plist and outlives it.
  launchctl enable "system/$1"
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    said=$(launchctl bootstrap system "$root/Library/LaunchDaemons/$1.plist" 2>&1) && return 0
    ! loaded "$1" || return 0
    sleep 1
  done
  fail "launchd does not take $1: $said"
}

still_waiting() {
  echo "$label: waiting until it serves"
}

main() {
  root=$1 name=$2 seconds=$3
  label=io.rackserve.$name
  log=$root/var/log/rackserve/$name.log
  stop_service "$root" "$name" "$seconds"
  # The daemon's own: it is opened by whom it runs as. The folder is root's, so nothing else can take its place.
  mkdir -p "${log%/*}"
  [ -f "$log" ] || : >"$log"
  chown "_rackserve-$name" "$log"
  chmod 640 "$log"
  before=$(( $(wc -c <"$log") ))
  bring_in "$label"
  if with_heartbeat still_waiting "$root/usr/local/libexec/rackserve/wait-ready" "$name" "$root"; then
    bring_in "$label.health"
    return 0
  fi
  take_out "$label" "$seconds"
  echo "$label does not serve; its last words:" >&2
  tail -c "+$(( before + 1 ))" "$log" | tail -n 40 >&2
  return 1
}

main "$@" </dev/null
