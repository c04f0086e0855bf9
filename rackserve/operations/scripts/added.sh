# added.sh: part of what runs in the transient unit: which packages are there because of rackserve, which is what
# uninstalling takes out again. `all_names` prints what is installed, in the package manager's own words.

added=/var/lib/rackserve/packages-added
before=/var/lib/rackserve/packages-before

# noting COMMAND...: run it, and add to the list what is there afterwards and was not before. What was there before is on
# disk until then: a host that loses its power in between makes up for it in the next run.
noting() {
  mkdir -p /var/lib/rackserve
  [ -e "$before" ] || { all_names >"$before.new" && mv -fT "$before.new" "$before"; }
  code=0
  "$@" || code=$?
  note
  return "$code"
}

note() {
  [ -e "$before" ] || return 0
  now=$(all_names)
  { cat "$added" 2>/dev/null; echo "$now" | grep -vxF -f "$before"; } | sort -u >"$added.new"
  sync "$added.new" && mv -fT "$added.new" "$added" && rm -f "$before"
}

# mine: packages of the list that are still there, except kernels: nobody takes out what the host may boot.
mine() {
  all_names | grep -xF -f "$added" 2>/dev/null | grep -vE '^(linux-(image|generic|virtual)|kernel(-core)?$)'
}

# Units that rackserve enabled, while the packages that can disable them are still there.
units_off() {
  [ -e /var/lib/rackserve/units-enabled ] || return 0
  while read -r unit; do systemctl disable --quiet --now "$unit" 2>/dev/null; done </var/lib/rackserve/units-enabled
}
