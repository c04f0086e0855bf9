# transaction.sh: part of the scripts that install packages. `unit_script`, which stands before it, is what does the
# work: it runs under PID 1 and not under ssh, because a lost connection must not leave a package manager half way.

said_so_far() {
  tail -n 1 "$log" 2>/dev/null
}

still_running() {
  systemctl is-active --quiet "$unit.service"
}

until_it_ends() {
  while still_running; do sleep 1; done
}

# What the package manager said that explains a failure, a postinst's package and exit code in one line.
reasons() {
  [ -e "$log" ] || return 0
  # apt gives dpkg a terminal, whose lines end in CR LF.
  found=$(tr -d '\r' <"$log" | awk '
    /^dpkg: error processing / { line = $0; if ((getline more) > 0) sub(/^ +/, "", more); print line " " more; next }
    /^ +[^ ]+ : (Depends|PreDepends|Conflicts|Breaks):/ ||
      /^(E:|W: (GPG error|Failed to fetch)|dpkg: error|[^ ]+: error|Error[^s]|Consult |No match for)/ || /^ +(Problem|- )/' | awk '!seen[$0]++' | head -n 12)
  echo "${found:-$(tail -n 5 "$log")}"
}

# The command that undoes the transaction, where it replaced anything: told, and kept for the night it is wanted.
way_back() {
  command=$(sed -n 's/^way back: //p' "$log")
  [ -n "$command" ] || return 0
  mkdir -p /var/lib/rackserve
  echo "$command" | tee /var/lib/rackserve/driver-way-back
}

# transaction LOCK_TIMEOUT JOB ARGUMENT...: run a job of the unit's script to its end; if another run has one running, or
# one that lost its connection left it behind, wait for it and never start a second one beside it.
transaction() {
  unit=rackserve-packages log=/run/rackserve-packages.log file=/run/rackserve-packages.sh
  timeout=$1; shift
  id=$(printf '%s\n' "$@" | sha256sum | cut -d' ' -f1)
  # Kept until the script ends: of two that begin at the same moment both would find no unit, and the log is this run's.
  exec 9>/run/rackserve-packages.lock
  waited=no
  if ! flock -n 9 || still_running; then
    echo "an earlier run's transaction still runs: waiting for it"
    with_heartbeat said_so_far flock 9
    with_heartbeat said_so_far until_it_ends
    waited=yes
  fi
  if [ "$waited" = yes ]; then
    # The same job: its result is ours.
    read -r code of 2>/dev/null <"$log.result" || of=
    if [ "$of" = "$id" ]; then return "$code"; fi
  fi
  # What is left of an earlier one must not explain this one.
  rm -f "$log" "$log.result"
  # In a file: systemd would expand `${...}` in a command line of its own.
  # shellcheck disable=SC2154 # stands before this file in what is sent
  (umask 077; printf '%s' "$unit_script" >"$file.new"; mv -fT "$file.new" "$file")
  with_heartbeat said_so_far \
    systemd-run --quiet --collect --wait --unit="$unit" /bin/sh "$file" "$log" "$id" "$timeout" "$@" 9>&-
}

# remove_ours LOCK_TIMEOUT: take out the packages that rackserve brought; which went and which stay is for the operator.
remove_ours() {
  if ! transaction "$1" remove; then
    echo "packages not removed" >&2
    reasons >&2
    return 1
  fi
  grep -E '^(removed|stays): ' "$log" >/run/rackserve-uninstall.log
  return 0
}
