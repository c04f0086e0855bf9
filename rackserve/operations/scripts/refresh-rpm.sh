# refresh-rpm.sh LOCK_TIMEOUT STREAM PACKAGE...: read the package lists anew and have these packages, which others need.
# STREAM is a module's, as in nvidia-driver:580-open, or empty.

main() {
  timeout=$1; shift
  transaction "$timeout" refresh "$@" && return 0
  echo "package lists not refreshed" >&2
  reasons >&2
  return 1
}

main "$@" </dev/null
