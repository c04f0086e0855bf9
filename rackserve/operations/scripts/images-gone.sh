# images-gone.sh LIST: remove the images that rackserve has pulled, except those that somebody else's container uses.
# LIST is the file that they stand in.

main() {
  list=$1
  while read -r image; do
    podman rmi "$image" >/dev/null 2>&1 || ! podman image exists "$image" || echo "in use, left there: $image"
  done <<LISTED
$(cat "$list")
LISTED
  rm -f "$list"
}

main "$@" </dev/null
