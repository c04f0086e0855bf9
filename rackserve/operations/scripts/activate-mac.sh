# activate-mac.sh RELEASE LINK KEEP: point LINK at RELEASE, then drop all but the newest KEEP releases.
set -e

main() {
  release=$1 link=$2 keep=$3
  [ -d "$release" ] || fail "no such release: $release"
  mkdir -p "$(dirname "$link")"
  # -n, which is -h to macOS: without it the link would be made inside the folder that LINK points to.
  ln -sfn "$release" "$link"
  touch "$release"
  # Newest first; the current one was touched just now. `llama.cpp-*` are the releases of this runtime.
  # shellcheck disable=SC2012 # our own folder names, and ls is what sorts by time
  ls -1dt "$(dirname "$release")/$(basename "$link")"-*/ | tail -n "+$(( keep + 1 ))" |
    while read -r old; do rm -rf "$old"; done
}

main "$@" </dev/null
