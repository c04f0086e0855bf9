# compile-check.sh CHECK UNIT: run the oneshot CHECK, which asks whether the planned release of UNIT compiles what it will
# have to; where it does not, say which tool said what. UNIT is not touched.

said_so_far() {
  echo "$check: $(systemctl show -p SubState --value "$check")"
}

# What the check and systemd said in this run of it.
words() {
  journalctl --sync 2>/dev/null
  id=$(systemctl show -p InvocationID --value "$check")
  journalctl "_SYSTEMD_INVOCATION_ID=$id" + "INVOCATION_ID=$id" --output cat --no-pager --lines 40
}

main() {
  check=$1 unit=$2
  # Of a run that broke off one may still be at it, for another plan: to start it would be to join it.
  systemctl stop "$check" 2>/dev/null
  systemctl daemon-reload
  systemctl reset-failed "$check" 2>/dev/null
  with_heartbeat said_so_far systemctl start "$check" 2>/dev/null && return 0
  told=$(words)
  # Told below: a unit that stays failed would have the host count as degraded, whatever is planned next.
  systemctl reset-failed "$check" 2>/dev/null
  # Of the check itself; else what systemd says of a sandbox that could not be made.
  last=$(printf '%s\n' "$told" | grep -E '^(compile-check|launch): ' | tail -n 1)
  [ -n "$last" ] || last=$(printf '%s\n' "$told" | grep -v '^$' | tail -n 3)
  echo "$unit is left as it is, its planned release does not compile: ${last:-see journalctl -u $check}" >&2
  return 1
}

main "$@" </dev/null
