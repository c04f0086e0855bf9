# mac.sh: part of the scripts for macOS, which has no GNU tools and a shell of 2007.

fail() {
  echo "$1" >&2
  exit 1
}

# sum_of FILE CHECKSUM: of the kind that CHECKSUM is, SHA-256 or SHA-512, four bits to a character.
sum_of() {
  shasum -a "$(( ${#2} * 4 ))" <"$1" | cut -d' ' -f1
}

# lock LINK: be the only one, as LINK says; fails after two hours.
lock() {
  lock=$1 session=$(sysctl -n kern.bootsessionuuid)
  with_heartbeat waiting take || return 1
  trap 'rm -f "$lock"' EXIT
}

# Made in one step, and left by nobody who is still at it: its target is a pid, and the boot that this is one of.
take() {
  patience=$(( $(date +%s) + 7200 ))
  until ln -s "$$@$session" "$lock" 2>/dev/null; do
    holder=$(readlink "$lock")
    if [ -n "$holder" ] && ! still_there "$holder"; then
      rm -f "$lock"
      continue
    fi
    [ "$(date +%s)" -lt "$patience" ] || return 1
    sleep 1
  done
}

still_there() {
  [ "${1#*@}" = "$session" ] && kill -0 "${1%%@*}" 2>/dev/null
}

# known KIND ACCOUNT KEY: the number that the directory has for a user or group, nothing where it has none.
known() {
  dscl . -read "/$1/$2" "$3" 2>/dev/null | awk '{print $2}'
}

loaded() {
  launchctl print "system/$1" >/dev/null 2>&1
}

# take_out LABEL SECONDS: have launchd end a job and forget it. It says so before the process is gone, and a job of the
# same name is refused until then (bootstrap: 5 or 37).
take_out() {
  last_moment=$(( $(date +%s) + $2 + 15 ))
  # 3 and 113: it was not loaded. 36: still at it.
  launchctl bootout "system/$1" 2>/dev/null || :
  while loaded "$1"; do
    [ "$(date +%s)" -lt "$last_moment" ] || fail "launchd does not let go of $1: launchctl print system/$1"
    sleep 1
  done
}

# stop_service ROOT NAME SECONDS: let requests in flight finish, then stop. The watch goes first: it would restart the rest.
stop_service() {
  take_out "io.rackserve.$2.health" 5
  if loaded "io.rackserve.$2" && [ -x "$1/usr/local/libexec/rackserve/drain" ]; then
    "$1/usr/local/libexec/rackserve/drain" "$2" "$1" || :
  fi
  take_out "io.rackserve.$2" "$3"
}
