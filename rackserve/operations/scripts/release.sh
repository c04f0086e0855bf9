# release.sh RELEASE SOURCE BACKEND: make the folder RELEASE with bin/llama-server in it, complete or not at all.
# SOURCE is an archive to unpack, or a program of a distribution package to link to. BACKEND is what it computes with.
# shellcheck disable=SC2154 # staging is set by staging.sh, which stands before this

from_archive() {
  unpack "$1"
  program=$(find "$staging" -type f -name llama-server | head -n 1)
  [ -n "$program" ] || fail "no llama-server in $1"
  if [ "$program" != "$staging/bin/llama-server" ]; then
    mkdir -p "$staging/bin"
    # Relative, because the folder is renamed; its shared libraries lie beside the real file.
    ln -s "../${program#"$staging/"}" "$staging/bin/llama-server"
  fi
}

main() {
  source=$2 backend=$3
  umask 022
  begin "$1" test -x "$1/bin/llama-server"
  case $source in
    */llama-server) mkdir -p "$staging/bin" && ln -s "$source" "$staging/bin/llama-server" ;;
    *) from_archive "$source" ;;
  esac
  problem=$(check_program "$staging/bin/llama-server" "$backend") || fail "$problem"
  finish
}

main "$@" </dev/null
