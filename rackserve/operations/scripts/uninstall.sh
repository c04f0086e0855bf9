# uninstall.sh PATH...: remove what rackserve put on a host beside its services and packages. Models stay.

told=/run/rackserve-uninstall.log
list=/etc/modprobe.d/rackserve-gpu.conf

# The first file system has a copy of it, which would keep nouveau from the cards at the next boot too.
allow_nouveau() {
  [ -e "$list" ] || return 0
  mv -fT "$list" "$list.gone"
  if ! initramfs_anew; then
    mv -fT "$list.gone" "$list"
    exit 1
  fi
  rm -f "$list.gone" /run/rackserve-initramfs.log
}

# unload MODULE...: take out those that are no longer there to be loaded.
unload() {
  for name; do
    [ -d "/sys/module/$name" ] || continue
    # Debian's own package has the module under another name, and this line for modprobe to find it.
    ! grep -rqsE "^install +$name " /etc/modprobe.d /lib/modprobe.d || continue
    now=$(cat "/sys/module/$name/version" 2>/dev/null)
    there=$(modinfo -F version "$name" 2>/dev/null) && [ "$there" = "$now" ] && continue
    case $name in nvidia*) rmmod "$name" 2>/dev/null && continue ;; esac
    echo "$name${now:+ $now} stays loaded until the next boot"
  done
}

main() {
  systemctl disable --quiet --now gpu-ready.service 2>/dev/null
  allow_nouveau
  rm -rf "$@" || exit 1
  systemctl daemon-reload
  systemctl reset-failed gpu-ready.service 2>/dev/null
  command -v nvidia-ctk >/dev/null || rm -f /run/cdi/nvidia.yaml
  rmdir /etc/systemd/system/nvidia-cdi-refresh.service.d /run/cdi 2>/dev/null
  {
    unload nvidia_drm nvidia_modeset nvidia_uvm nvidia_peermem nvidia amdgpu
    find /etc/apt /etc/yum.repos.d /etc/cdi -name '*.disabled-by-rackserve*' 2>/dev/null |
      sed 's/^/moved aside once, and left there: /'
    ! grep -qs nvidia-container-runtime /etc/docker/daemon.json ||
      echo "/etc/docker/daemon.json still names nvidia-container-runtime"
  } >>"$told"
  return 0
}

main "$@" </dev/null
