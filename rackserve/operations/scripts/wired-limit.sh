# wired-limit.sh LABEL PLIST MIB TEXT: set how much memory an Apple GPU may use, now and at every start. For macOS.
set -e

main() {
  label=$1 plist=$2 mib=$3 text=$4
  staged=$(mktemp "$plist.XXXXXX")
  trap 'rm -f "$staged"' EXIT
  printf '%s' "$text" >"$staged"
  plutil -lint -s "$staged"
  # launchd ignores a job whose file others may write.
  chown root:wheel "$staged"
  chmod 644 "$staged"
  mv -f "$staged" "$plist"
  # 3 and 113: it was not loaded.
  launchctl bootout "system/$label" 2>/dev/null || :
  launchctl bootstrap system "$plist"
  sysctl "iogpu.wired_limit_mb=$mib" >/dev/null
  found=$(sysctl -n iogpu.wired_limit_mb)
  [ "$found" = "$mib" ] || { echo "iogpu.wired_limit_mb is $found after it was set to $mib" >&2; exit 1; }
}

main "$@" </dev/null
