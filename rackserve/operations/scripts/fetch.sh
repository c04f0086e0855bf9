# fetch.sh URL CHECKSUM SIZE DESTINATION: put a verified file in place; nothing unverified ever has the final name.
# CHECKSUM is SHA-256 or SHA-512, as its length tells. SIZE is in bytes, 0 where it is not known beforehand.

fail() {
  echo "$1" >&2
  exit 1
}

said_so_far() {
  echo "$(( $(stat -c %s "$part" 2>/dev/null || echo 0) / 1048576 )) MiB of $url"
}

# checksum_of FILE
checksum_of() {
  "sha${kind}sum" <"$1" | cut -d' ' -f1
}

matches() {
  found=$(checksum_of "$part")
  [ "$found" = "$checksum" ]
}

# A run that died between the last byte and the rename left the whole file: there is nothing to continue.
already_whole() {
  if [ "$have" = 0 ] || [ "$have" -lt "$size" ]; then return 1; fi
  matches && return 0
  [ "$size" = 0 ] || { rm -f "$part"; have=0; }
  return 1
}

main() {
  url=$1 checksum=$2 size=$3 destination=$4
  kind=$(( ${#checksum} * 4 ))
  umask 022
  folder=$(dirname "$destination")
  staging=$(dirname "$folder")/.staging
  part=$staging/$checksum
  mkdir -p "$staging"
  # Another run may still be at it: wait for it, then find its result.
  exec 9>"$part.lock"
  take_lock 7200 || fail "not fetched: $url: another run has been fetching it for two hours"
  [ ! -f "$destination" ] || [ "$(checksum_of "$destination")" != "$checksum" ] || exit 0
  have=$(stat -c %s "$part" 2>/dev/null || echo 0)
  free=$(( $(df -Pk "$staging" | awk 'NR==2 {print $4}') * 1024 ))
  # 16 MiB on top: a file system filled to the last block takes the host down with it.
  if [ "$size" -gt 0 ] && [ $(( size - have + 16777216 )) -gt "$free" ]; then
    fail "not fetched: $(df -Pk "$staging" | awk 'NR==2 {print $6}') has $(( free / 1048576 )) MiB free, $(( (size - have) / 1048576 + 17 )) MiB are needed for $url"
  fi
  already_whole || download
  if ! matches && [ "$have" != 0 ]; then
    # What an earlier run had left may be what is wrong.
    rm -f "$part"
    download
  fi
  if ! matches; then
    rm -f "$part"
    fail "not used: $url: SHA-$kind is $found, expected $checksum"
  fi
  if ! { chmod 644 "$part" && sync "$part" && mkdir -p "$folder" && mv -fT "$part" "$destination"; }; then
    fail "not put in place: $destination"
  fi
  rm -f "$part.lock"
}

main "$@" </dev/null
