# uninstall-mac.sh PATH...: remove what rackserve put on a Mac beside its services. Models stay.

main() {
  rm -rf "$@"
}

main "$@" </dev/null
