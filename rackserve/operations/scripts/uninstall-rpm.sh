# uninstall-rpm.sh LOCK_TIMEOUT: take out the packages that rackserve brought, except those that others need by now.

main() {
  remove_ours "$1"
}

main "$@" </dev/null
