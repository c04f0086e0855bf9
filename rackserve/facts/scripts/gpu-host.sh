# gpu-host.sh ROOT MODULE PATTERN...: what a host's GPUs are and what drives them, a fact in each line, tabs between words.
# ROOT is empty for the host itself; otherwise a folder with a recorded host's files. MODULE is the driver's. PATTERNs are
# packages whose candidates are asked for; {release} in them stands for a kernel. Changes nothing and never fails.

say() {
  (IFS='	'; printf '%s\n' "$*")
}

first_line() {
  head -n 1 "$1" 2>/dev/null
}

system() {
  # shellcheck disable=SC1091 # the host's own
  (ID='' VERSION_ID='' VERSION_CODENAME=''; . "$root/etc/os-release" 2>/dev/null; say system "$ID" "$VERSION_ID" "$VERSION_CODENAME")
  say architecture "$(first_line "$root/proc/sys/kernel/arch" || uname -m)"
  say boot_id "$(first_line "$root/proc/sys/kernel/random/boot_id")"
  for mount in / /var /boot; do
    say free "$mount" "$(df -Pm "$root$mount" 2>/dev/null | awk 'NR == 2 {print $4}')"
  done
  [ -n "$root" ] || say cloud_init "$(cloud-init status 2>/dev/null | sed -n 's/^status: //p')"
}

# The name under which modprobe finds the module: Debian's own packages give the file another one.
file_name() {
  renamed=$(sed -nE "s#^install $module (/[^ ]*/)?modprobe -i ([^ ]+).*#\\2#p" "$root"/etc/modprobe.d/*.conf 2>/dev/null | tail -n 1)
  echo "${renamed:-$module}"
}

# Installed kernels, oldest first, and the one that boots next: the boot loader's choice, or the newest where it has none.
kernels() {
  kernel=$(first_line "$root/proc/sys/kernel/osrelease")
  say kernel "$kernel"
  installed=$(for image in "$root"/boot/vmlinuz-* "$root"/lib/modules/*/vmlinuz; do
    [ -e "$image" ] || continue
    case $image in
      */vmlinuz) basename "$(dirname "$image")" ;;
      *-rescue-*) ;;
      *) basename "$image" | sed 's/^vmlinuz-//' ;;
    esac
  done | sort -Vu)
  for name in $installed; do say installed_kernel "$name"; done
  next=$(sed -n 's/^saved_entry=[0-9a-f]*-//p' "$root/boot/grub2/grubenv" 2>/dev/null)
  case " $(echo "$installed" | tr '\n' ' ') " in
    *" $next "*) [ -n "$next" ] || next= ;;
    *) next= ;;
  esac
  next=${next:-$(echo "$installed" | tail -n 1)}
  say next_kernel "$next"
  driver=$(file_name)
  for name in "$kernel" $installed; do
    [ -e "$root/lib/modules/$name/build/Makefile" ] && say headers "$name"
    file=$(modinfo ${root:+-b "$root"} -k "$name" -F filename "$driver" 2>/dev/null)
    [ -n "$file" ] && say module_version "$name" "$(modinfo ${root:+-b "$root"} -k "$name" -F version "$driver" 2>/dev/null)"
  done
}

secure_boot() {
  if [ ! -d "$root/sys/firmware/efi" ]; then
    say secure_boot no
    return
  fi
  variable=$root/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
  # Four bytes of attributes come before the value.
  case $(od -An -tu1 -j4 -N1 "$variable" 2>/dev/null | tr -d ' ') in
    1) say secure_boot yes ;;
    0) say secure_boot no ;;
  esac
  [ -z "$root" ] || return
  for key in /var/lib/shim-signed/mok/MOK.der /var/lib/dkms/mok.pub; do
    if [ -e "$key" ]; then
      case $(mokutil --test-key "$key" 2>&1) in *"already enrolled"*) say key_enrolled yes ;; esac
    fi
  done
}

# The largest memory window in MiB: of a card with resizable BAR it is all of its memory.
largest_window() {
  largest=0
  while read -r begin end _; do
    [ "$end" != 0x0000000000000000 ] || continue
    size=$(( (end - begin + 1) >> 20 ))
    if [ "$size" -gt "$largest" ]; then largest=$size; fi
  done <<WINDOWS
$(head -n 6 "$1/resource" 2>/dev/null)
WINDOWS
  echo "$largest"
}

devices() {
  for device in "$root"/sys/bus/pci/devices/*; do
    class=$(first_line "$device/class") vendor=$(first_line "$device/vendor")
    case $class$vendor in
      # Display controllers, accelerators, and NVIDIA's NVSwitch bridges.
      0x03* | 0x12* | 0x06*0x10de) ;;
      *) continue ;;
    esac
    driver=$(readlink "$device/driver" 2>/dev/null)
    answers=yes
    [ "$(od -An -tx4 -N4 "$device/config" 2>/dev/null | tr -d ' ')" != ffffffff ] || answers=no
    say device "$(basename "$device")" "${vendor#0x}:$(first_line "$device/device" | cut -c3-)" "${class#0x}" \
      "$(largest_window "$device")" "$answers" "${driver##*/}"
  done
}

modules() {
  for name in nvidia nvidia_uvm nvidia_modeset nvidia_drm nvidia_peermem nouveau amdgpu xe i915; do
    [ -d "$root/sys/module/$name" ] && say loaded "$name" "$(first_line "$root/sys/module/$name/version")"
  done
  if [ -r "$root/proc/driver/nvidia/version" ]; then
    if grep -q "Open Kernel Module" "$root/proc/driver/nvidia/version"; then say flavour open; else say flavour proprietary; fi
  fi
  for library in "$root"/usr/lib/*-linux-gnu/libcuda.so.*.* "$root"/usr/lib64/libcuda.so.*.*; do
    [ -e "$library" ] && say library "${library##*.so.}"
  done
}

packages() {
  if [ -d "$root/var/lib/dpkg" ]; then
    # An abbreviation of three letters: wanted (h is on hold), state, error.
    dpkg-query --admindir="$root/var/lib/dpkg" -W -f 'package\t${Package}\t${Version}\t${db:Status-Abbrev}\n' 2>/dev/null
    [ -z "$(ls "$root/var/lib/dpkg/updates" 2>/dev/null)" ] || say package dpkg-journal - 'xx '
  elif [ -d "$root/var/lib/rpm" ] || [ -d "$root/usr/lib/sysimage/rpm" ]; then
    rpm ${root:+--root "$root"} -qa --qf 'package\t%{NAME}\t%{VERSION}-%{RELEASE}\tii \n' 2>/dev/null
  fi
  uninstaller=$root/usr/bin/nvidia-uninstall
  if [ -e "$uninstaller" ] && ! dpkg-query --admindir="$root/var/lib/dpkg" -S /usr/bin/nvidia-uninstall >/dev/null 2>&1 &&
    ! rpm ${root:+--root "$root"} -qf /usr/bin/nvidia-uninstall >/dev/null 2>&1; then
    say run_file yes
  fi
}

# Of packages for the running kernel and the next: whether there is a list to look them up in, and what it has.
candidates() {
  wanted=$(for pattern; do
    for name in "$kernel" "$next"; do [ -z "$name" ] || echo "$pattern" | sed "s/{release}/$name/g"; done
  done | sort -u)
  [ -n "$wanted" ] || return 0
  # shellcheck disable=SC2012,SC2086 # whether there is any; a list of words
  if [ -n "$root" ]; then
    [ -e "$root/candidates" ] && say lists yes && sed 's/^/candidate	/' "$root/candidates"
  elif ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1; then
    say lists yes
    LC_ALL=C apt-cache policy $wanted 2>/dev/null | awk '
      /^[^ ].*:$/ {name = substr($0, 1, length($0) - 1)}
      $1 == "Candidate:" && $2 != "(none)" {print "candidate\t" name "\t" $2}'
  elif command -v dnf >/dev/null 2>&1 && dnf -q --cacheonly repoquery bash >/dev/null 2>&1; then
    say lists yes
    for name in $wanted; do
      version=$(dnf -q --cacheonly repoquery --qf '%{version}-%{release}' "$name" 2>/dev/null | tail -n 1)
      [ -z "$version" ] || say candidate "$name" "$version"
    done
  fi
}

main() {
  root=$1 module=$2; shift 2
  system
  kernels
  secure_boot
  devices
  modules
  packages
  candidates "$@"
  return 0
}

main "$@" </dev/null
