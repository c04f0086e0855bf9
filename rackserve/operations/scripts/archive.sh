# archive.sh RELEASE ARCHIVE PROGRAM VERSION: make the folder RELEASE of an archive, complete or not at all. PROGRAM is the
# path of its program in both. VERSION is what that has to say of itself, empty where it cannot be asked.
# shellcheck disable=SC2154 # staging is set by staging.sh, which stands before this

# A server that another Ollama runs on this host would be asked for its version too: nobody listens on that port.
version_of() {
  HOME=/ OLLAMA_HOST=127.0.0.1:9 timeout 60 "$1" --version 2>&1
}

main() {
  archive=$2 program=$3 version=$4
  umask 022
  begin "$1" test -x "$1/$program"
  unpack "$archive"
  if [ ! -f "$staging/$program" ] || [ ! -x "$staging/$program" ]; then fail "no program $program in $archive"; fi
  if [ -n "$version" ]; then
    said=$(version_of "$staging/$program") || fail "$program does not run on this host: $said"
    echo "$said" | sed 's/.*version is //' | grep -qxF -e "$version" || fail "$archive is for $version, $program says: $said"
  fi
  finish
}

main "$@" </dev/null
