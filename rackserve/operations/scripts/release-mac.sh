# release-mac.sh RELEASE ARCHIVE PROGRAM: unpack an archive into the folder RELEASE, complete or not at all. PROGRAM is
# where the program is to be in it, as in bin/llama-server: that folder becomes a link to the one that the archive has.

refuse() {
  rm -rf "$staging"
  fail "$1"
}

main() {
  release=$1 archive=$2 program=$3
  umask 022
  releases=$(dirname "$release")
  staging=$releases/.staging-$(basename "$release")
  mkdir -p "$releases" || fail "no folder for $release"
  # A run that lost its connection may still be at it.
  lock "$releases/.lock" || fail "not made: $release: another run has been making a release for two hours"
  [ ! -x "$release/$program" ] || return 0
  # What runs have left that were killed, also of versions that nobody plans any more.
  rm -rf "$releases"/.staging-*
  mkdir "$staging"
  # No owner, no setuid bit from outside; tar goes on after a bad member, so its exit code decides.
  tar -C "$staging" --no-same-owner --no-same-permissions -xf "$archive" || refuse "not unpacked: $archive"
  found=$(find "$staging" -type f -name "$(basename "$program")" | head -n 1)
  [ -n "$found" ] || refuse "no $(basename "$program") in $archive"
  # A link to its folder and not to itself: it looks for its libraries beside the path that it was started by.
  inside=$(dirname "${found#"$staging/"}")
  [ "$found" = "$staging/$program" ] || ln -s "$inside" "$staging/$(dirname "$program")" || refuse "no link to $inside"
  chmod -R a+rX,go-w "$staging"
  # curl marks nothing, and tar hands on what the archive was marked with: a mark here is a sign of another way in.
  if mark=$(xattr -p com.apple.quarantine "$found" 2>/dev/null); then
    refuse "$archive is quarantined ($mark): macOS would ask somebody at the screen before it runs it. It was not fetched by \
this tool: remove it, and run again"
  fi
  said=$("$staging/$program" --version 2>&1) || refuse "$program does not run on this host: $said"
  # What is not on disk yet when it gets its name may be empty after a loss of power.
  sync
  rm -rf "$release"
  mv "$staging" "$release"
}

main "$@" </dev/null
