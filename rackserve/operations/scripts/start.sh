# start.sh UNIT SECONDS KIND [CACHES]: restart a unit and wait until it serves; on failure stop it and show what it said.
# KIND is program, whose unit is enabled, or container, whose unit podman makes of a file whenever systemd reads units.
# CACHES is a folder of which it reads the folders of releases and images alone: all else goes once it serves.

# What the other kind of unit has left would take this one's place.
load_program() {
  rm -f "$file"
  systemctl daemon-reload
  systemctl enable --quiet "$unit"
}

load_container() {
  rm -f "/etc/systemd/system/multi-user.target.wants/$unit"
  systemctl daemon-reload
  [ "$(systemctl show -p UnitFileState --value "$unit")" != generated ] || return 0
  echo "podman makes no unit of $file:" >&2
  /usr/lib/systemd/system-generators/podman-system-generator --dryrun 2>&1 >/dev/null | tail -n 3 >&2
  return 1
}

# The folder is the service's own, which could lead elsewhere: find follows no link, and acts from within.
drop_caches() {
  [ -z "$caches" ] || [ ! -d "$caches" ] ||
    find "$caches" -mindepth 1 -maxdepth 1 ! -name releases ! -name images -execdir rm -rf {} \;
}

main() {
  unit=$1 deadline=$(( $(date +%s) + $2 )) file=/etc/containers/systemd/${1%.service}.container caches=${4-}
  "load_$3" || return 1
  systemctl reset-failed "$unit" 2>/dev/null
  started=$(date '+%Y-%m-%d %H:%M:%S')
  # Not waited for by systemctl: a silent minute is where firewalls drop idle ssh connections.
  systemctl restart --no-block "$unit" || return 1
  last=
  while :; do
    # shellcheck disable=SC2046 # two words: ActiveState and SubState
    set -- $(systemctl show -p ActiveState -p SubState --value "$unit")
    [ "$1 $2" = "$last" ] || echo "$unit: $1 ($2)"
    last="$1 $2"
    case $last in
      "active running") [ -n "$(systemctl list-jobs --no-legend "$unit")" ] || { drop_caches; return 0; } ;;
      failed* | "activating auto-restart") break ;;
      # Dead with nothing queued: systemd gave up before it started anything, for example on a failed dependency.
      inactive*) [ -n "$(systemctl list-jobs --no-legend "$unit")" ] || break ;;
    esac
    if [ "$(date +%s)" -ge "$deadline" ]; then
      echo "$unit: not serving in time, last state $last" >&2
      break
    fi
    sleep 1
  done
  systemctl stop "$unit"
  echo "$unit does not serve; its last words:" >&2
  journalctl --unit "$unit" --since "$started" --lines 40 --output cat --no-pager >&2
  return 1
}

main "$@" </dev/null
