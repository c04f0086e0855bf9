# load-driver.sh DIGEST MODULES FLAVOUR BUILT UNLOAD UNITS KERNEL: have the installed kernel modules loaded, without a reboot
# where that is possible. MODULES and UNITS are one word each; the first of MODULES is the driver. FLAVOUR is open,
# proprietary or empty. BUILT: DKMS makes the module. UNLOAD: a loaded one may be taken out under a running system.
# KERNEL: why another kernel has to be booted for these cards, or empty.
# Where it takes a reboot, that is written down with its reason and this boot's id, and nothing else is done.

state=/var/lib/rackserve
owed=$state/driver-reboot
stopped=$state/driver-stopped
said_by_dkms=/run/rackserve-dkms.log

refuse() {
  echo "$1" >&2
  exit 1
}

# Never twice for one change: a host that comes back with the same trouble would reboot for ever.
owe() {
  boot=$(cat /proc/sys/kernel/random/boot_id)
  read -r before before_boot _ 2>/dev/null <"$owed" || before=
  if [ "$before" = "$digest" ] && [ "$before_boot" != "$boot" ]; then
    refuse "rebooted for this driver already, and it still takes a reboot: $1"
  fi
  echo "$digest $boot $1" >"$owed.new" && sync "$owed.new" && mv -fT "$owed.new" "$owed"
  echo "reboot needed: $1"
  exit 0
}

# The name under which modprobe finds the module: Debian's own packages give the file another one.
file_name() {
  renamed=$(sed -nE "s#^install $module (/[^ ]*/)?modprobe -i ([^ ]+).*#\\2#p" /etc/modprobe.d/*.conf 2>/dev/null | tail -n 1)
  echo "${renamed:-$module}"
}

available() {
  modinfo -k "$1" -F filename "$(file_name)" >/dev/null 2>&1
}

newest_kernel() {
  for image in /boot/vmlinuz-*; do
    case $image in *-rescue-* | */vmlinuz-\*) ;; *) echo "${image#/boot/vmlinuz-}" ;; esac
  done | sort -V | tail -n 1
}

building() {
  # shellcheck disable=SC2012 # names of our own making, and ls is what sorts by time
  echo "building: $(tail -n 1 "$(ls -1t /var/lib/dkms/*/*/build/make.log 2>/dev/null | head -n 1)" 2>/dev/null | cut -c 1-120)"
}

build() {
  dkms autoinstall -k "$1" >"$said_by_dkms" 2>&1
}

# DKMS names the log of each module that it failed to build; the compiler's first complaint in it is the reason.
why_not_built() {
  logs=$(sed -nE 's#.*(/var/lib/dkms/[^ ]*/make\.log).*#\1#p' "$said_by_dkms")
  log=$(echo "$logs" | grep -m 1 "/dkms/$module" || echo "$logs" | tail -n 1)
  if [ -s "$log" ]; then
    { grep -m 1 -iE '(^|[ :])error:' "$log" || tail -n 1 "$log"; } | sed 's#^/var/lib/dkms/[^ ]*/build/##' | cut -c 1-200
    echo "(see $log)"
  else
    tail -n 3 "$said_by_dkms"
  fi | tr '\n' ' '
}

# DKMS's own postinst ends in 0 where it skipped a kernel, and dkms fails where only another module was not built.
build_missing() {
  for name in "$kernel" "$newest"; do
    if [ -n "$name" ] && [ -e "/lib/modules/$name/build/Makefile" ] && ! available "$name"; then
      echo "building $module for $name"
      with_heartbeat building build "$name"
      available "$name" || refuse "$module was not built for $name: $(why_not_built)"
    fi
  done
}

without_module() {
  [ -z "$newest" ] || [ "$newest" = "$kernel" ] || ! available "$newest" ||
    owe "the running kernel $kernel has no $module module, $newest has one"
  refuse "kernel $kernel has no $module module after the installation: dkms status; /var/lib/dkms/*/*/build/make.log"
}

# A list of what must not be loaded counts at the next boot only if the first file system has it too.
refresh_initramfs() {
  list=/etc/modprobe.d/rackserve-gpu.conf
  [ -e "$list" ] || return 0
  stale=$(find /boot -maxdepth 1 \( -name 'initrd.img-*' -o -name 'initramfs-*.img' \) \
    ! -name '*kdump*' ! -name '*rescue*' ! -newer "$list" 2>/dev/null)
  [ -n "$stale" ] || return 0
  initramfs_anew || exit 1
}

loaded() {
  [ -d "/sys/module/$1" ]
}

# Why what is loaded now has to go, nothing where it may stay.
in_the_way() {
  if [ "$module" = nvidia ] && loaded nouveau; then
    echo "nouveau drives the cards"
  elif loaded "$module"; then
    now=$(cat "/sys/module/$module/version" 2>/dev/null) wanted=$(modinfo -F version "$(file_name)" 2>/dev/null)
    found=proprietary
    ! grep -qs "Open Kernel Module" /proc/driver/nvidia/version || found=open
    if [ -n "$wanted" ] && [ "$now" != "$wanted" ]; then
      echo "$module ${now:-of the kernel itself} is loaded, $wanted is installed"
    elif [ -n "$flavour" ] && [ "$found" != "$flavour" ]; then
      echo "the $found $module is loaded, the $flavour one is installed"
    fi
  fi
}

stop_users() {
  services=$(systemctl list-units --plain --no-legend --state=active,activating,reloading 'rackserve@*' | awk '{print $1}')
  for service in $services; do
    grep -qsx "$service" "$stopped" || echo "$service" >>"$stopped"
  done
  # shellcheck disable=SC2086 # lists of units
  systemctl stop $services $units nvidia-persistenced.service nvidia-fabricmanager.service nvlsm.service \
    nvidia-dcgm.service dcgm-exporter.service nvidia-gridd.service nvidia-topologyd.service 2>/dev/null
  # A text console is what keeps nouveau in use on a server.
  if loaded nouveau; then
    for console in /sys/class/vtconsole/vtcon*; do
      ! grep -qs "frame buffer" "$console/name" || echo 0 >"$console/bind"
    done
  fi
}

# Who has a GPU open: pid, program and unit of each.
holders() {
  for process in /proc/[0-9]*; do
    # shellcheck disable=SC2010 # a list of links, whose names are numbers
    if ls -l "$process/fd" 2>/dev/null | grep -qE ' /dev/(nvidia|dri/|kfd)'; then
      unit=$(sed -n 's#.*/\([^/]*\.\(service\|scope\)\)$#\1#p' "$process/cgroup" 2>/dev/null | head -n 1)
      echo "pid ${process#/proc/} ($(cat "$process/comm" 2>/dev/null)${unit:+ of $unit})"
    fi
  done | head -n 5 | paste -s -d ',' | sed 's/,/, /g'
}

unload_all() {
  for name in nvidia_drm nvidia_modeset nvidia_uvm nvidia_peermem nvidia nouveau; do
    if loaded "$name" && ! said=$(rmmod "$name" 2>&1); then
      who=$(holders)
      owe "$1, and $name cannot be taken out: ${who:-$said}"
    fi
  done
}

load_all() {
  for name in $modules; do
    loaded "$name" && continue
    said=$(modprobe "$name" 2>&1) && continue
    case $said in
      *"Key was rejected"*) refuse "Secure Boot refuses $name, which is signed by no key that the firmware knows: switch it off in the firmware, or enrol the host's key with mokutil --import and confirm at the console" ;;
      *) refuse "$name was not loaded: $(echo "$said" | tail -n 1); $(journalctl -k -b -n 3 -o cat --no-pager 2>/dev/null | tr '\n' ' ')" ;;
    esac
  done
}

main() {
  digest=$1 modules=$2 flavour=$3 built=$4 unload=$5 units=$6 kernel_owed=$7
  module=${modules%% *} kernel=$(uname -r) newest=$(newest_kernel)
  mkdir -p "$state"
  # It says that all is as planned, which from here on has to be shown again.
  rm -f "$state/driver.json"
  [ "$built" = no ] || build_missing
  available "$kernel" || without_module
  refresh_initramfs
  why=$(in_the_way)
  if [ -n "$why" ]; then
    echo "$why"
    [ "$unload" = yes ] || owe "$why, and it cannot be taken out of a running system"
    stop_users
    unload_all "$why"
  fi
  load_all
  [ -z "$kernel_owed" ] || owe "$kernel_owed"
}

main "$@" </dev/null
