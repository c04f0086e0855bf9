# unit-rpm.sh LOG ID LOCK_TIMEOUT JOB ARGUMENT...: what runs in the transient unit of transaction.sh, for dnf and rpm.
# ID goes into LOG.result with the exit code. JOB is a function below.
# shellcheck disable=SC2154 # log, timeout and deadline are set by unit.sh, which stands before this

streams=/var/lib/rackserve/dnf-streams

# dnf waits for its lock for ever by itself; told not to, it ends in 200.
patiently() {
  while :; do
    : >"$log"
    code=0
    "$@" || code=$?
    [ "$code" = 200 ] || return "$code"
    [ "$(date +%s)" -lt "$deadline" ] || break
    sleep 2
  done
  name_holder Error 'already locked by|with pid'
  return 1
}

quietly_yes() {
  dnf -y --setopt=exit_on_lock=True --setopt=skip_if_unavailable=False "$@"
}

# Our own locks are on what the driver is made of: no other transaction may pass them, or those of the operator.
past_locks() {
  quietly_yes --disableplugin=versionlock "$@"
}

absent() {
  for package in "$@"; do
    rpm -q --quiet --whatprovides "$package" || echo "$package"
  done
}

# refresh STREAM PACKAGE...: read the package lists anew, have these packages, and a module's stream. Ends in 3 where the
# packages, and in 4 where the stream could not be had.
refresh() {
  stream=$1; shift
  patiently quietly_yes -q makecache || return 1
  # shellcheck disable=SC2046 # names of packages
  [ -z "$(absent "$@")" ] || patiently quietly_yes install $(absent "$@") || return 3
  module=${stream%%:*}
  [ -n "$module" ] || return 0
  enabled=$(dnf -q module list --enabled "$module" 2>/dev/null | awk -v m="$module" '$1 == m {print m ":" $2; exit}')
  [ "$enabled" != "$stream" ] || return 0
  # Uninstalling leaves it again.
  echo "$module" >>"$streams"
  # A stream cannot be changed while another one is enabled.
  patiently quietly_yes module reset "$module" && patiently quietly_yes module enable "$stream" || return 4
}

# driver REPLACED LOCKED PACKAGE...: LOCKED is one word, of names whose versions nothing else may change afterwards.
driver() {
  replaced=$1 locked=$2; shift 2
  patiently past_locks install "$@" && hold "$locked" || return 1
  # After all that is tried patiently, which begins the log anew.
  [ -z "$replaced" ] || echo "way back: dnf --disableplugin=versionlock install $replaced"
}

# hold NAMES: lock the versions that these have now, in place of those they were locked to before.
hold() {
  [ -n "$(absent python3-dnf-plugin-versionlock)" ] && { patiently dnf -y --setopt=exit_on_lock=True install \
    python3-dnf-plugin-versionlock || return 1; }
  # shellcheck disable=SC2086 # lists of names
  set -- $1
  [ $# -gt 0 ] || return 0
  dnf -q versionlock delete "$@" >/dev/null 2>&1
  patiently dnf -q --setopt=exit_on_lock=True versionlock add "$@"
}

# Keys are packages to rpm, all of one name.
all_names() {
  listed=$(rpm -qa --qf '%{NAME}\n') || return 1
  { echo "$listed" | grep -vx gpg-pubkey; rpm -q gpg-pubkey | grep '^gpg-pubkey-'; } | sort -u
}

# needs PACKAGE...: what others need of these, each with who needs it.
needs() {
  rpm -e --test "$@" 2>&1 | sed -nE 's/^[[:space:]]*(.+) is needed by \(installed\) (.+)$/\1|\2/p'
}

# remove: take out what rackserve brought, except what others need by now, and leave the streams that were entered.
remove() {
  note
  units_off
  # shellcheck disable=SC2046 # names of packages
  set -- $(mine | grep -v '^gpg-pubkey-')
  [ $# -eq 0 ] || dnf -q versionlock delete "$@" >/dev/null 2>&1
  stays=
  while [ $# -gt 0 ] && found=$(needs "$@") && [ -n "$found" ]; do
    left=" $* "
    while IFS='|' read -r capability needing; do
      for package in $(rpm -q --qf '%{NAME}\n' --whatprovides "$capability"); do
        case $left in *" $package "*)
          stays="${stays}stays: $package, needed by $needing
"
          left="${left%% "$package" *} ${left#* "$package" }" ;;
        esac
      done
    done <<FOUND
$found
FOUND
    [ "$left" != " $* " ] || { echo "Error: others need these packages: $found"; return 1; }
    # shellcheck disable=SC2086 # names of packages
    set -- $left
  done
  [ $# -eq 0 ] || patiently past_locks --setopt=clean_requirements_on_remove=False remove "$@" || return 1
  mine | grep '^gpg-pubkey-' | while read -r key; do rpm -e "$key"; done
  sort -u "$streams" 2>/dev/null | while read -r module; do patiently quietly_yes module reset "$module"; done
  [ $# -eq 0 ] || echo "removed: $*"
  printf '%s' "$stays"
}

main() {
  begin "$1" "$2" "$3"; shift 3
  job "$@"
}

main "$@" </dev/null
