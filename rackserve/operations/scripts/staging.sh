# staging.sh: part of the scripts that make a release, a folder that is complete or not there at all. What it is made of
# comes together in the folder `staging` beside it.

fail() {
  echo "$1" >&2
  rm -rf "${staging:?}"
  exit 1
}

# begin RELEASE: print the name of the empty folder that becomes `staging`.
begin() {
  folder=$(dirname "$1")/.staging-$(basename "$1")
  rm -rf "$folder"
  mkdir -p "$folder"
  echo "$folder"
}

said_so_far() {
  echo "$(du -sm "${staging:?}" 2>/dev/null | cut -f1) MiB unpacked"
}

# unpack ARCHIVE
unpack() {
  # No owner, no setuid bit from outside; tar goes on after a bad member, so its exit code decides.
  with_heartbeat said_so_far tar -C "${staging:?}" --no-same-owner --no-same-permissions -xf "$1" ||
    fail "not unpacked: $1"
  chmod -R a+rX,go-w "$staging"
}

# finish RELEASE
finish() {
  rm -rf "$1"
  mv -T "${staging:?}" "$1"
}
