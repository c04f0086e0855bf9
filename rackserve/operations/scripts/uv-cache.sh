# uv-cache.sh UV WORK: drop what uv has fetched that no release on this host has any more; the next version of a runtime
# still finds what it has in common with those that stay. Where releases are on another file system nothing is linked,
# and nothing stays.

main() {
  uv=$1 cache=$2/uv
  # Whoever makes a release now cleans up after it.
  exec 9<"$(dirname "$uv")"
  flock -n 9 || exit 0
  for archive in "$cache"/archive-v*/*/; do
    [ -d "$archive" ] || continue
    [ -n "$(find "$archive" -type f -links +1 -print -quit)" ] || rm -rf "$archive"
  done
  "$uv/bin/uv" cache prune --quiet --cache-dir "$cache"
}

main "$@" </dev/null
