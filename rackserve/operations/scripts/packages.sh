# packages.sh LOCK_TIMEOUT PACKAGE...: install distribution packages, or say in a few lines why not.
# The whole file is one function, so that the shell has read all of it before anything can eat its standard input.

main() {
  timeout=$1; shift
  transaction "$timeout" install "$@" && return 0
  echo "packages not installed: $*" >&2
  reasons >&2
  return 1
}

main "$@" </dev/null
