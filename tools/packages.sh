#!/bin/sh
# packages.sh PACKAGE...: have these Debian packages, installed here where that is possible, else named in one sentence.
set -eu

missing=
for package in "$@"; do
  dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^.i' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  # Not fatal: the tests of pure code need none of them, and the lab says itself what it misses.
  echo "not installed:$missing (the lab needs them: run as root on Debian or Ubuntu, or install them yourself)" >&2
  exit 0
fi
echo "installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -o DPkg::Lock::Timeout=300 update
# shellcheck disable=SC2086 # a list of package names
apt-get -qq -y -o DPkg::Lock::Timeout=300 --no-install-recommends install $missing >/dev/null
