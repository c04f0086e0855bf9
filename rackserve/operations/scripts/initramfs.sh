# initramfs.sh: part of the scripts that change which modules are loaded at boot.

initramfs_so_far() {
  echo "writing the initramfs anew"
}

# Write the first file system of every kernel anew, or say why it was not.
initramfs_anew() {
  if command -v update-initramfs >/dev/null; then
    with_heartbeat initramfs_so_far update-initramfs -u -k all
  elif command -v dracut >/dev/null; then
    with_heartbeat initramfs_so_far dracut --force --regenerate-all
  fi >/run/rackserve-initramfs.log 2>&1 && return 0
  echo "the initramfs was not written anew: $(tail -n 2 /run/rackserve-initramfs.log | tr '\n' ' ')" >&2
  return 1
}
