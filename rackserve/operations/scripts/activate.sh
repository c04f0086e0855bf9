# activate.sh RELEASE LINK KEEP CACHES: point LINK at RELEASE in one step, then drop all but the newest KEEP releases, and
# what services keep of releases that are gone, in CACHES/SERVICE/releases/RELEASE.
set -e

# The folders above are a service's own, which could lead elsewhere: find follows no link, and acts from within.
drop_caches() {
  [ -d "$caches" ] || return 0
  # shellcheck disable=SC2016 # for the shell that find starts
  find "$caches" -mindepth 3 -maxdepth 3 -type d -path "$caches/*/releases/$runtime-*" -prune \
    -execdir sh -c '[ -d "$1/${2#./}" ] || rm -rf "$2"' sh "$folder" {} \;
}

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
  # Newest first; the current one was touched just now. `llama.cpp-*` are the releases of this runtime.
  # shellcheck disable=SC2012 # our own folder names, and ls is what sorts by time
  ls -1dt "$folder/$runtime"-*/ | tail -n "+$(( keep + 1 ))" | while read -r old; do rm -rf "$old"; done
  drop_caches
}

main "$@" </dev/null
