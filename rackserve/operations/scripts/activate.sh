# activate.sh RELEASE LINK KEEP: point LINK at RELEASE in one step, then drop all but the newest KEEP releases.
set -e

main() {
  release=$1 link=$2 keep=$3
  [ -d "$release" ] || { echo "no such release: $release" >&2; exit 1; }
  folder=$(dirname "$release")
  mkdir -p "$(dirname "$link")"
  rm -f "$link.new"
  ln -s "$release" "$link.new"
  mv -fT "$link.new" "$link"
  touch "$release"
  # Newest first; the current one was touched just now. `llama.cpp-*` are the releases of this runtime.
  # shellcheck disable=SC2012 # our own folder names, and ls is what sorts by time
  ls -1dt "$folder/$(basename "$link")"-*/ | tail -n "+$(( keep + 1 ))" | while read -r old; do rm -rf "$old"; done
}

main "$@" </dev/null
