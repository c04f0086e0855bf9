# fetch-mac.sh URL CHECKSUM SIZE DESTINATION: put a verified file in place; nothing unverified ever has the final name.
# CHECKSUM is SHA-256 or SHA-512. SIZE is in bytes, 0 where it is not known beforehand.

size_of() {
  if [ -f "$1" ]; then echo "$(( $(wc -c <"$1") ))"; else echo 0; fi
}

said_so_far() {
  echo "$(( $(size_of "$part") / 1048576 )) MiB of $url"
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
  lock "$part.lock" || fail "not fetched: $url: another run has been fetching it for two hours"
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
