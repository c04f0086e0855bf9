# release.sh RELEASE SOURCE: make the folder RELEASE with bin/llama-server in it, complete or not at all.
# SOURCE is an archive to unpack, or a program of a distribution package to link to.

fail() {
  echo "$1" >&2
  rm -rf "$staging"
  exit 1
}

unpack() {
  # No owner, no setuid bit from outside; tar goes on after a bad member, so its exit code decides.
  tar -C "$staging" --no-same-owner --no-same-permissions -xf "$1" || fail "not unpacked: $1"
  program=$(find "$staging" -type f -name llama-server | head -n 1)
  [ -n "$program" ] || fail "no llama-server in $1"
  if [ "$program" != "$staging/bin/llama-server" ]; then
    mkdir -p "$staging/bin"
    # Relative, because the folder is renamed; its shared libraries lie beside the real file.
    ln -s "../${program#"$staging/"}" "$staging/bin/llama-server"
  fi
  chmod -R a+rX,go-w "$staging"
}

main() {
  release=$1 source=$2
  umask 022
  staging=$(dirname "$release")/.staging-$(basename "$release")
  rm -rf "$staging"
  mkdir -p "$staging"
  case $source in
    */llama-server) mkdir "$staging/bin" && ln -s "$source" "$staging/bin/llama-server" ;;
    *) unpack "$source" ;;
  esac
  said=$("$staging/bin/llama-server" --version 2>&1) || fail "llama-server does not run on this host: $said"
  rm -rf "$release"
  mv -T "$staging" "$release"
}

main "$@" </dev/null
