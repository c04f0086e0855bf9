# driver-rpm.sh LOCK_TIMEOUT REPLACED LOCKED PACKAGE...: install the driver's packages as they were simulated.
# REPLACED and LOCKED are one word each: NAME-VERSION of what goes, and names of what is held at its version afterwards.

main() {
  timeout=$1 replaced=$2 locked=$3; shift 3
  if transaction "$timeout" driver "$replaced" "$locked" "$@"; then
    way_back
    return 0
  fi
  echo "driver packages not installed: $*" >&2
  reasons >&2
  return 1
}

main "$@" </dev/null
