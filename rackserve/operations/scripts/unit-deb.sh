# unit-deb.sh LOG ID LOCK_TIMEOUT JOB ARGUMENT...: what runs in the transient unit of transaction.sh, for apt and dpkg.
# ID goes into LOG.result with the exit code. JOB is a function below.
# shellcheck disable=SC2154 # log, timeout and deadline are set by unit.sh, which stands before this

kept=/var/cache/rackserve/debs
locked='Could not get lock|Unable to lock|is locked by another process|lock was locked by'
mismatch='Hash Sum mismatch|unexpected size|Mirror sync in progress'

# apt-get update and dpkg take locks that DPkg::Lock::Timeout does not cover, so they are tried again here.
patiently() {
  while :; do
    : >"$log"
    "$@" && return 0
    grep -qE "$locked" "$log" || return 1
    [ "$(date +%s)" -lt "$deadline" ] || break
    sleep 2
  done
  name_holder E 'with pid|held by process'
  return 1
}

get() {
  apt-get -q -y -o "DPkg::Lock::Timeout=$timeout" -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
    -o Acquire::Retries=3 --no-install-recommends "$@"
}

# What dpkg was unpacking when it died, which only unpacking it once more mends; apt would configure it, in vain.
half_unpacked() {
  dpkg-query -W -f '${db:Status-Eflag}|${binary:Package}\n' | sed -n 's/^reinstreq|//p'
}

# An earlier run that died inside dpkg left packages half configured; apt refuses everything until that is settled.
settle() {
  patiently dpkg --configure -a && [ -z "$(half_unpacked)" ] && patiently apt-get -q check && return 0
  ! grep -qE "$locked" "$log" || return 1
  # Whatever mends it comes from the repositories: without them apt would rather remove what lacks something.
  update || return 1
  # shellcheck disable=SC2046 # names of packages
  [ -z "$(half_unpacked)" ] || get -f --reinstall install $(half_unpacked) || return 1
  removed=$(apt-get -s -q -f install 2>/dev/null | sed -n 's/^\(Remv\|Purg\) \([^ ]*\).*/\2/p' | tr '\n' ' ')
  if [ -n "$removed" ]; then
    echo "E: an interrupted installation can only be mended by removing: $removed"
    return 1
  fi
  get -f install
}

# once_more FOLDER COMMAND...: a mirror in the middle of its own update is consistent again a moment later.
once_more() {
  partial=$1/partial; shift
  patiently "$@" && return 0
  grep -qE "$mismatch" "$log" || return 1
  rm -rf "${partial:?}"/*
  sleep 2
  patiently "$@"
}

# By itself apt-get update exits 0 on a bad signature or a dead mirror and goes on with the old lists.
update() {
  once_more "$lists" apt-get -q -o APT::Update::Error-Mode=any -o Acquire::Retries=3 update
}

refresh() {
  settle && update
}

install() {
  settle && update && once_more "$archives" get install "$@"
}

# file_of NAME[:ARCHITECTURE]=VERSION FOLDER: the package's file as apt names it, if it is there.
file_of() {
  name=${1%%=*} version=$(echo "${1#*=}" | sed 's/:/%3a/g')
  case $name in *:*) architectures=${name#*:} ;; *) architectures="$(dpkg --print-architecture) all" ;; esac
  for architecture in $architectures; do
    path=$2/${name%%:*}_${version}_$architecture.deb
    if [ -e "$path" ]; then echo "$path"; return 0; fi
  done
  return 1
}

# keep NAME[:ARCHITECTURE]=VERSION: have this package's file in $kept, from where apt put it or from the repository, and
# say where it is.
keep() {
  if ! file_of "$1" "$kept" >/dev/null; then
    if from=$(file_of "$1" "$archives"); then
      # A part of a file, on a full disk, must not be taken for one.
      cp "$from" "$kept/part" 2>/dev/null && mv -fT "$kept/part" "$kept/${from##*/}"
    else
      (cd "$kept" && apt-get -q -o APT::Sandbox::User=root download "$1") >/dev/null 2>&1
    fi
  fi
  rm -f "$kept/part"
  path=$(file_of "$1" "$kept") && touch "$path" && echo "$path"
}

# driver DOWNGRADE REPLACED BROUGHT PACKAGE...: the two words in the middle are lists of NAME=VERSION.
driver() {
  downgrade=$1 replaced=$2 brought=$3; shift 3
  allow=; [ "$downgrade" = no ] || allow=--allow-downgrades
  mkdir -p "$kept"
  # Ubuntu's archive drops a version as soon as it has the next one: without its files there is no way back.
  old=
  for package in $replaced; do
    if path=$(keep "$package"); then old="$old $path"; fi
  done
  # shellcheck disable=SC2086 # one option or none
  once_more "$archives" get $allow install "$@" || return 1
  [ -z "$old" ] || echo "way back: apt-get install --allow-downgrades$old"
  for package in $brought; do
    path=$(keep "$package") || continue
    # This one and the one before it.
    # shellcheck disable=SC2012 # names of packages, and ls is what sorts by time
    ls -1t "$kept/${package%%[:=]*}"_*_"${path##*_}" | tail -n +3 | while read -r file; do rm -f "$file"; done
  done
  return 0
}

# Without the architecture of the machine itself, which apt leaves out as well.
all_names() {
  listed=$(dpkg-query -W -f '${db:Status-Status}|${binary:Package}\n') || return 1
  echo "$listed" | grep -vE '^(not-installed|config-files)\|' |
    sed "s/^[^|]*|//; s/:$(dpkg --print-architecture)\$//" | sort -u
}

# taken_along PACKAGE...: what would go with these and is none of them.
taken_along() {
  apt-get -s -q purge "$@" 2>/dev/null | sed -nE 's/^(Purg|Remv) ([^ ]+) .*/\2/p' |
    grep -vxF -e "$(printf '%s\n' "$@")" | paste -s -d ' '
}

# remove: purge what rackserve brought, except what others need by now.
remove() {
  settle || return 1
  note
  units_off
  # shellcheck disable=SC2046 # names of packages
  set -- $(mine)
  stays=
  while [ $# -gt 0 ] && others=$(taken_along "$@") && [ -n "$others" ]; do
    left=
    for package in "$@"; do
      needing=$(taken_along "$package" | tr ' ' '\n' | grep -xF -e "$(echo "$others" | tr ' ' '\n')" | paste -s -d ' ')
      if [ -n "$needing" ]; then stays="${stays}stays: $package, needed by $needing
"
      else left="$left $package"; fi
    done
    # None by itself, as where others need one or the other: the first one stays.
    if [ "$left" = " $*" ]; then
      stays="${stays}stays: $1, needed by $others
"
      left="${left# "$1"}"
    fi
    # shellcheck disable=SC2086 # names of packages
    set -- $left
  done
  [ $# -eq 0 ] || patiently get purge "$@" || return 1
  [ $# -eq 0 ] || echo "removed: $*"
  printf '%s' "$stays"
}

main() {
  begin "$1" "$2" "$3"; shift 3
  export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l NEEDRESTART_SUSPEND=1
  eval "$(apt-config shell lists Dir::State::lists/d archives Dir::Cache::archives/d)"
  lists=${lists%/} archives=${archives%/}
  job "$@"
}

main "$@" </dev/null
