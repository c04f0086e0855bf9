# staging.sh: part of the scripts that make a release, a folder that is complete or not there at all. What it is made of
# comes together in the folder `staging` beside it.

fail() {
  echo "$1" >&2
  rm -rf "${staging:?}"
  exit 1
}

# begin RELEASE CHECK...: be the only one that makes releases on this host, and end well if CHECK says that this one is
# there by then. Sets `release`, `releases`, `name` and `staging`, which is not there yet.
begin() {
  release=$1; shift
  releases=$(dirname "$release") name=$(basename "$release")
  staging=$releases/.staging-$name
  mkdir -p "$releases"
  # A run that lost its connection may still be at it. The folder itself is locked: nothing is left of that.
  exec 9<"$releases"
  take_lock 7200 || { echo "not made: $name: another run has been making a release for two hours" >&2; exit 1; }
  if "$@"; then exit 0; fi
  # What runs have left that were killed, also of versions that nobody plans any more.
  rm -rf "$releases"/.staging-*
}

unpacked_so_far() {
  echo "$(du -sm "${staging:?}" 2>/dev/null | cut -f1) MiB unpacked"
}

# unpack ARCHIVE
unpack() {
  mkdir "$staging"
  # No owner, no setuid bit from outside; tar goes on after a bad member, so its exit code decides.
  with_heartbeat unpacked_so_far tar -C "$staging" --no-same-owner --no-same-permissions -xf "$1" ||
    fail "not unpacked: $1"
}

writing() {
  echo "writing $name to disk"
}

# What is not on disk yet when it gets its name may be empty after a loss of power.
on_disk() {
  chmod -R a+rX,go-w "$staging" && sync -f "$staging"
}

# finish: give the release its name.
finish() {
  with_heartbeat writing on_disk || fail "not written to disk: $name"
  rm -rf "$release"
  mv -T "$staging" "$release"
}
