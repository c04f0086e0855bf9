# heartbeat.sh: part of every script. Firewalls drop ssh connections on which nothing is said for minutes.

# with_heartbeat PROGRESS COMMAND...: run COMMAND, and every 15 seconds the function PROGRESS, which says how far it is.
with_heartbeat() {
  progress=$1
  shift
  # Nothing of ours stays open in it: not the connection (a run would wait for its end), not a script's lock.
  { while sleep 15 >/dev/null 2>&1; do "$progress"; done; } 9>&- &
  heartbeat=$!
  code=0
  "$@" || code=$?
  kill "$heartbeat" 2>/dev/null || :
  wait "$heartbeat" 2>/dev/null || :
  return "$code"
}

waiting() {
  echo "another run is at it: waiting for it"
}

# take_lock SECONDS: lock what is open as 9, which another run may have locked; fails after that time.
take_lock() {
  with_heartbeat waiting flock -w "$1" 9
}
