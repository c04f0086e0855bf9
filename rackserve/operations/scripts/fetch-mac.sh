# fetch-mac.sh URL CHECKSUM SIZE DESTINATION: put a verified file in place; nothing unverified ever has the final name.
# CHECKSUM is SHA-256 or SHA-512. SIZE is in bytes, 0 where it is not known beforehand.

size_of() {
  if [ -f "$1" ]; then echo "$(( $(wc -c <"$1") ))"; else echo 0; fi
}

said_so_far() {
  echo "$(( $(size_of "$part") / 1048576 )) MiB of $url"
}

transfer() {
  curl --fail --location --silent --show-error --connect-timeout 15 --retry 3 --retry-delay 2 \
    --speed-limit 1024 --speed-time 60 "$@" --output "$part" -- "$url" 2>"$part.error"
}

download() {
  rc=0
  with_heartbeat said_so_far transfer --continue-at - || rc=$?
  # 33: the server cannot resume; 36 and HTTP 416: what is there is no beginning of this file. Start it over.
  if [ "$rc" = 33 ] || [ "$rc" = 36 ] || grep -q 'error: 416' "$part.error"; then
    rm -f "$part"
    rc=0
    with_heartbeat said_so_far transfer || rc=$?
  fi
  message=$(tail -n 1 "$part.error")
  rm -f "$part.error"
  [ "$rc" = 0 ] || fail "not fetched: $url: ${message:-curl failed with $rc}"
}

# A link whose target is the pid: made in one step, and left by nobody who is still at it.
lock() {
  patience=$(( $(date +%s) + 7200 ))
  until ln -s "$$" "$part.lock" 2>/dev/null; do
    holder=$(readlink "$part.lock")
    if [ -n "$holder" ] && ! kill -0 "$holder" 2>/dev/null; then
      rm -f "$part.lock"
      continue
    fi
    [ "$(date +%s)" -lt "$patience" ] || fail "not fetched: $url: another run has been fetching it for two hours"
    sleep 1
  done
  trap 'rm -f "$part.lock"' EXIT
}

# 16 MiB on top: a volume filled to the last block takes the host down with it.
room() {
  missing=$(( size - $(size_of "$part") + 16777216 ))
  free=$(( $(df -Pk "$staging" | awk 'NR == 2 {print $4}') * 1024 ))
  [ "$size" = 0 ] || [ "$missing" -le "$free" ] ||
    fail "not fetched: $staging has $(( free / 1048576 )) MiB free, $(( missing / 1048576 )) MiB are needed for $url"
}

main() {
  url=$1 checksum=$2 size=$3 destination=$4
  umask 022
  folder=$(dirname "$destination")
  staging=$(dirname "$folder")/.staging
  part=$staging/$checksum
  mkdir -p "$staging" "$folder" || fail "not fetched: $url: no folder for it"
  lock
  if [ -f "$destination" ] && [ "$(sum_of "$destination" "$checksum")" = "$checksum" ]; then return 0; fi
  room
  for _ in once again; do
    before=$(size_of "$part")
    # A run that died between the last byte and the rename left the whole file: there is nothing to continue.
    if [ "$size" = 0 ] || [ "$before" -lt "$size" ]; then download; fi
    found=$(sum_of "$part" "$checksum")
    [ "$found" != "$checksum" ] || break
    # What an earlier run had left may be what is wrong.
    rm -f "$part"
    [ "$before" != 0 ] || fail "not used: $url: its checksum is $found, expected $checksum"
  done
  sync
  if ! { chmod 644 "$part" && mv -f "$part" "$destination"; }; then fail "not put in place: $destination"; fi
}

main "$@" </dev/null
