# repository.sh: part of the scripts that add a package repository: its key, where its files go, who else defines it.
# shellcheck disable=SC2154 # url, key_url, fingerprints and key_sha256 are arguments of the script

fail() {
  echo "repository $url not added: $1" >&2
  exit 1
}

# stage NAME: an empty folder that nobody else can read, for one run at a time; it goes when the script ends.
stage() {
  umask 022
  mkdir -p /var/lib/rackserve
  exec 9>"/var/lib/rackserve/.repository.lock"
  take_lock 600 || fail "another run has been adding a repository for 10 minutes"
  staging=/var/lib/rackserve/.repository
  rm -rf "$staging"
  mkdir -m 700 "$staging"
  trap 'rm -rf "$staging"' EXIT
}

fetch_key() {
  said=$(curl --fail --proto '=https,http' --location --silent --show-error --connect-timeout 15 --max-time 60 \
    --retry 3 --retry-delay 2 --output "$staging/key" -- "$key_url" 2>&1) && return 0
  off=$(clock_off "$key_url")
  fail "its key was not fetched from $key_url: ${off:-${said:-curl failed}}"
}

primary_fingerprints() {
  mkdir -p "$staging/gnupg" && chmod 700 "$staging/gnupg"
  gpg --homedir "$staging/gnupg" --no-keyring --batch --show-keys --with-colons "$1" 2>/dev/null |
    awk -F: '$1 == "pub" || $1 == "sec" {n = 1} $1 == "fpr" && n {print $10; n = 0}' | sort | tr '\n' ' '
}

# A key file is what everything else is trusted by: all primary keys in it are the pinned ones, no more and no fewer.
check_key() {
  found=$(primary_fingerprints "$staging/key")
  if [ -n "$fingerprints" ]; then
    # shellcheck disable=SC2086 # a list of words
    wanted=$(printf '%s\n' $fingerprints | sort | tr '\n' ' ')
    [ "$found" = "$wanted" ] || fail "$key_url holds the keys ${found:-none }and has to hold $wanted"
  fi
  if [ -n "$key_sha256" ]; then
    sum=$(sed '/^Version/d' "$staging/key" | sha256sum | cut -d' ' -f1)
    [ "$sum" = "$key_sha256" ] || fail "$key_url has SHA-256 $sum without its Version line, and has to have $key_sha256"
  fi
}

# clock_off URL: how far this host's clock is from the server's, nothing where they agree within two minutes.
clock_off() {
  # Only the time is taken from this answer, and a clock that is off is itself what makes a certificate invalid.
  there=$(curl --silent --insecure --head --max-time 15 -- "$1" | tr -d '\r' | sed -n 's/^[Dd]ate: //p' | tail -n 1)
  [ -n "$there" ] || return 0
  off=$(( $(date +%s) - $(date -d "$there" +%s) ))
  if [ "$off" -gt 120 ]; then
    echo "this host's clock is $(span "$off") ahead of the server's: set it (chronyd or systemd-timesyncd keeps it right)"
  elif [ "$off" -lt -120 ]; then
    echo "this host's clock is $(span $(( -off ))) behind the server's: set it (chronyd or systemd-timesyncd keeps it right)"
  fi
}

span() {
  if [ "$1" -ge 172800 ]; then echo "$(( $1 / 86400 )) days"
  elif [ "$1" -ge 7200 ]; then echo "$(( $1 / 3600 )) hours"
  else echo "$1 seconds"
  fi
}

# put SOURCE DESTINATION [MODE]: in one step, for everybody to read unless stated.
put() {
  folder=$(dirname "$2")
  mkdir -p "$folder"
  # Hidden files are no configuration to any package manager.
  rm -f "$folder"/.rackserve.*
  fresh=$(mktemp "$folder/.rackserve.XXXXXX")
  if ! { cat "$1" >"$fresh" && chmod "${3:-644}" "$fresh" && sync "$fresh" && mv -fT "$fresh" "$2"; }; then
    rm -f "$fresh"
    fail "$2 could not be written"
  fi
}

# set_aside FILE WHERE: stop somebody else's definition of the same repository. WHERE is empty for a file that holds
# nothing else, the very line of a .list file, or the section of a .repo file. The file stays beside itself.
set_aside() {
  aside=$1.disabled-by-rackserve
  if [ -z "$2" ]; then
    mv --backup=numbered -fT "$1" "$aside" || fail "$1 could not be moved aside"
    echo "moved aside: $1 to $aside"
    return 0
  fi
  if ! grep -qxF -e "$2" "$1"; then
    # The same line twice in a file: both went the first time.
    grep -qxF -e "# disabled by rackserve: $2" "$1" && return 0
    fail "$1 has changed meanwhile: run again"
  fi
  case $2 in
    '['*) where=$2 awk '
      $0 == ENVIRON["where"] {print; print "enabled=0"; ours = 1; next}
      /^\[/ {ours = 0}
      !(ours && /^[ \t]*enabled[ \t]*=/)' "$1" >"$staging/edited" ;;
    *) where=$2 awk '$0 == ENVIRON["where"] {print "# disabled by rackserve: " $0; next} {print}' "$1" >"$staging/edited" ;;
  esac
  # Once in a run: several entries of one file are taken out one after the other.
  case $kept in
    *"<$1>"*) ;;
    *) cp --backup=numbered --preserve "$1" "$aside" || fail "$1 could not be kept as $aside" ;;
  esac
  kept="$kept<$1>"
  # There may be a password in it.
  put "$staging/edited" "$1" "$(stat -c %a "$1")"
  echo "disabled in $1: $2 (as it was: $aside)"
}

set_all_aside() {
  kept=
  while [ $# -gt 0 ]; do
    set_aside "$1" "$2"
    shift 2
  done
}
