# initramfs.sh: part of the scripts that change which modules are loaded at boot.

initramfs_so_far() {
  echo "writing the initramfs anew"
}

# Alone in being redirected: what says how far it is has to reach the connection.
write_initramfs() {
  if command -v update-initramfs; then
    update-initramfs -u -k all
  elif command -v dracut; then
    dracut --force --regenerate-all
  fi >/run/rackserve-initramfs.log 2>&1
}

# Write the first file system of every kernel anew, or say why it was not.
initramfs_anew() {
  with_heartbeat initramfs_so_far write_initramfs && return 0
  echo "the initramfs was not written anew: $(tail -n 2 /run/rackserve-initramfs.log | tr '\n' ' ')" >&2
  return 1
}
