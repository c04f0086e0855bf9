# activate.sh RELEASE LINK KEEP CACHES: point LINK at RELEASE in one step, then drop all but the newest KEEP releases and
# what services keep of releases that are gone: see older.sh.
set -e

main() {
  release=$1 link=$2 keep=$3 caches=$4
  [ -d "$release" ] || { echo "no such release: $release" >&2; exit 1; }
  folder=$(dirname "$release") runtime=$(basename "$link")
  mkdir -p "$(dirname "$link")"
  # The way back is the release that was in use, however many newer ones were made and refused.
  [ ! -e "$link" ] || touch "$(readlink -f "$link")"
  rm -f "$link.new"
  ln -s "$release" "$link.new"
  mv -fT "$link.new" "$link"
  touch "$release"
  # The current one was touched just now, so it is the newest.
  drop_older "$folder" "$runtime" "$keep"
  drop_compiled "$folder" "$runtime" "$caches"
}

main "$@" </dev/null
