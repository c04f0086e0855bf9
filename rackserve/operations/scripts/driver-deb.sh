# driver-deb.sh LOCK_TIMEOUT DOWNGRADE REPLACED BROUGHT PACKAGE...: install the driver's packages as they were simulated.
# DOWNGRADE is yes or no. REPLACED and BROUGHT are one word each, of NAME=VERSION pairs: the driver's packages that go and
# come; their files are kept for a way back.

main() {
  timeout=$1 downgrade=$2 replaced=$3 brought=$4; shift 4
  if transaction "$timeout" driver "$downgrade" "$replaced" "$brought" "$@"; then
    way_back
    return 0
  fi
  echo "driver packages not installed: $*" >&2
  reasons >&2
  return 1
}

main "$@" </dev/null
