# uninstall.sh PATH...: remove what rackserve put on a host beside its services. Models and distribution packages stay.
set -e

main() {
  rm -rf "$@"
  systemctl daemon-reload
}

main "$@" </dev/null
