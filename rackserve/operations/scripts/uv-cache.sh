# uv-cache.sh UV WORK: drop what uv has fetched that no release on this host has any more: see older.sh.

main() {
  uv=$1 cache=$2/uv
  # Whoever makes a release now cleans up after it.
  exec 9<"$(dirname "$uv")"
  flock -n 9 || exit 0
  drop_fetched "$uv" "$cache"
}

main "$@" </dev/null
