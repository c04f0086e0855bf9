# refresh-deb.sh LOCK_TIMEOUT: settle what an interrupted run left half-installed, then read the package lists anew.

# At its first boot a machine may still be installing packages of its own.
cloud_init() {
  case $(cloud-init status 2>/dev/null) in *running*) ;; *) return 0 ;; esac
  with_heartbeat cloud_init_so_far timeout 600 cloud-init status --wait >/dev/null 2>&1
  case $? in
    0) ;;
    124) echo "cloud-init still runs after 10 minutes; going on beside it" >&2 ;;
    *) echo "cloud-init ended with an error, see: cloud-init status --long" >&2 ;;
  esac
}

cloud_init_so_far() {
  echo "waiting for cloud-init"
}

main() {
  cloud_init
  transaction "$1" refresh && return 0
  echo "package lists not refreshed" >&2
  reasons >&2
  return 1
}

main "$@" </dev/null
