# refresh-rpm.sh LOCK_TIMEOUT STREAM PACKAGE...: read the package lists anew and have these packages, which others need.
# STREAM is a module's, as in nvidia-driver:580-open, or empty.

absent() {
  for package; do rpm -q --quiet --whatprovides "$package" || printf ' %s' "$package"; done
}

main() {
  timeout=$1; shift
  code=0
  transaction "$timeout" refresh "$@" || code=$?
  stream=$1; shift
  case $code in
    0) return 0 ;;
    3) echo "packages not installed:$(absent "$@")" ;;
    4) echo "module stream not entered: $stream" ;;
    *) echo "package lists not refreshed" ;;
  esac >&2
  reasons >&2
  return 1
}

main "$@" </dev/null
