# unit.sh: part of what runs in the transient unit, whichever package manager it is: how it begins, who holds a lock, and
# which packages are there because of rackserve, which is what uninstalling takes out again.
# `all_names`, of the part that comes after this one, prints what is installed, in the package manager's own words.
# shellcheck disable=SC2034 # deadline is read by what comes after this

added=/var/lib/rackserve/packages-added
before=/var/lib/rackserve/packages-before

# begin LOG ID LOCK_TIMEOUT: have everything said go to LOG, and the exit code to LOG.result with ID.
begin() {
  log=$1 id=$2 timeout=$3
  # Appending: what is written after `: >"$log"` would otherwise begin with a hole, and grep take it for binary.
  rm -f "$log.result"
  : >"$log"
  exec >>"$log" 2>&1
  trap 'echo "$? $id" >"$log.result"' EXIT
  export LC_ALL=C
  deadline=$(( $(date +%s) + timeout ))
}

# name_holder WORD BEFORE: whoever holds a lock by the pid that the log has behind BEFORE, an expression. It is left alone:
# who ends it half way leaves a host without working packages.
name_holder() {
  pid=$(sed -nE "s/.*($2) ([0-9]+).*/\\2/p" "$log" | tail -n 1)
  [ -z "$pid" ] || echo "$1: held for more than $timeout s by pid $pid: $(tr '\0\n' '  ' <"/proc/$pid/cmdline")"
}

# job NAME ARGUMENT...: do it, and note what came with it.
job() {
  case $1 in remove) "$@" ;; *) noting "$@" ;; esac
}

# noting COMMAND...: run it, and add to the list what is there afterwards and was not before. What was there before is on
# disk until then: a host that loses its power in between makes up for it in the next run.
noting() {
  mkdir -p /var/lib/rackserve
  # Whole or not at all: what is missing in it would count as ours, and be taken out one day.
  [ -e "$before" ] || { all_names >"$before.new" && [ -s "$before.new" ] && mv -fT "$before.new" "$before"; }
  code=0
  "$@" || code=$?
  note
  return "$code"
}

note() {
  [ -e "$before" ] || return 0
  now=$(all_names) || return 0
  { cat "$added" 2>/dev/null; echo "$now" | grep -vxF -f "$before"; } | sort -u >"$added.new" && sync "$added.new" &&
    mv -fT "$added.new" "$added" && rm -f "$before"
}

# mine: packages of the list that are still there, except kernels: nobody takes out what the host may boot.
mine() {
  all_names | grep -xF -f "$added" 2>/dev/null | grep -vE '^(linux-(image|generic|virtual)|kernel(-core|-modules.*)?$)'
}

# Units that rackserve enabled, while the packages that can disable them are still there.
units_off() {
  [ -e /var/lib/rackserve/units-enabled ] || return 0
  while read -r unit; do systemctl disable --quiet --now "$unit" 2>/dev/null; done </var/lib/rackserve/units-enabled
}
