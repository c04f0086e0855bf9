# packages.sh LOCK_TIMEOUT PACKAGE...: install distribution packages, or say in a few lines why not.
# The whole file is one function, so that the shell has read all of it before anything can eat its standard input.

# What runs inside the transient unit; $1 is the log, $2 the seconds to wait for another package manager.
# shellcheck disable=SC2016 # expanded by the shell that runs it
transaction='
log=$1 timeout=$2; shift 2
exec >"$log" 2>&1
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l NEEDRESTART_SUSPEND=1
deadline=$(( $(date +%s) + timeout ))
# apt-get update and dpkg take locks that DPkg::Lock::Timeout does not cover, so they are tried again here.
patiently() {
  while :; do
    : >"$log"
    "$@" && return 0
    grep -qE "Could not get lock|Unable to lock|is locked by another process" "$log" || return 1
    [ "$(date +%s)" -lt "$deadline" ] || return 1
    sleep 2
  done
}
set -e
# An earlier run that died inside dpkg left packages half configured; apt refuses everything until that is settled.
patiently dpkg --configure -a
# By itself apt-get update exits 0 on a bad signature or a dead mirror and goes on with the old lists.
patiently apt-get -q -o APT::Update::Error-Mode=any update
apt-get -q -y -o "DPkg::Lock::Timeout=$timeout" -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
  --no-install-recommends install "$@"
'

said_so_far() {
  tail -n 1 "$log" 2>/dev/null
}

main() {
  timeout=$1; shift
  unit=rackserve-packages log=/run/rackserve-packages.log
  # A run that lost its connection left its transaction running: wait for it, never start a second one beside it.
  while systemctl is-active --quiet "$unit.service"; do sleep 1; done
  # Under PID 1 and not under ssh: a lost connection must not leave dpkg half way.
  with_heartbeat said_so_far \
    systemd-run --quiet --collect --wait --unit="$unit" /bin/sh -c "$transaction" sh "$log" "$timeout" "$@" && return 0
  echo "packages not installed: $*" >&2
  reasons=$(grep -hE '^(E:|dpkg: error|[^ ]+: error)' "$log" | sort -u | head -n 8)
  echo "${reasons:-$(tail -n 5 "$log")}" >&2
  return 1
}

main "$@" </dev/null
