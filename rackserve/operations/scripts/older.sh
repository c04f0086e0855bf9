# older.sh: part of the scripts that drop older releases of a runtime, and what is kept for those.

# in_use RELEASE: whether a process has files of it in memory. Which program it runs would not tell: that of a Python
# environment is a link to the host's own.
in_use() {
  grep -qsF " $(readlink -f "$1")/" /proc/[0-9]*/maps
}

# linked_to RELEASE RUNTIME: whether it is the current or the planned one.
linked_to() {
  for way in current planned; do
    [ "$(readlink -f "$(dirname "$(dirname "$1")")/$way/$2")" != "$(readlink -f "$1")" ] || return 0
  done
  return 1
}

# drop_older RELEASES RUNTIME KEEP: drop all but the newest KEEP releases, those that a link leads to and those that a
# process uses, and name what was dropped. `llama.cpp-*` are the releases of this runtime.
drop_older() {
  # shellcheck disable=SC2012 # our own folder names, and ls is what sorts by time
  ls -1dt "$1/$2"-*/ 2>/dev/null | tail -n "+$(( $3 + 1 ))" | while read -r old; do
    if linked_to "$old" "$2" || in_use "$old"; then continue; fi
    rm -rf "$old"
    echo "dropped $(basename "$old")"
  done
}

# drop_compiled RELEASES RUNTIME CACHES: drop what services keep of releases that are gone, in
# CACHES/SERVICE/releases/RELEASE. The folders above are a service's own, which could lead elsewhere: find follows no link,
# and acts from within.
drop_compiled() {
  [ -d "$3" ] || return 0
  # shellcheck disable=SC2016 # for the shell that find starts
  find "$3" -mindepth 3 -maxdepth 3 -type d -path "$3/*/releases/$2-*" -prune \
    -execdir sh -c '[ -d "$1/${2#./}" ] || rm -rf "$2"' sh "$1" {} \;
}

# drop_fetched UV CACHE: drop what uv has fetched that no release on this host has any more; the next version of a runtime
# still finds what it has in common with those that stay. Where releases are on another file system nothing is linked,
# and nothing stays. UV is not there where every release was made by another one.
drop_fetched() {
  for archive in "$2"/archive-v*/*/; do
    [ -d "$archive" ] || continue
    [ -n "$(find "$archive" -type f -links +1 -print -quit)" ] || rm -rf "$archive"
  done
  [ ! -x "$1/bin/uv" ] || "$1/bin/uv" cache prune --quiet --cache-dir "$2"
}
