# repository-rpm.sh URL KEY_URL FINGERPRINTS KEY_SHA256 KEYFILE REPO TEXT [FILE WHERE]...: add a dnf repository.
# FINGERPRINTS are one word, KEY_SHA256 may be empty. REPO is written with TEXT. FILE and WHERE: see set_aside.
# It is tried by itself first: a host's dnf works on as it did where anything is wrong with it.
# shellcheck disable=SC2034,SC2154 # shared with repository.sh, which stands before this

network='Curl error \((5|6|7|28|35|52|56)\)|Could not resolve|Connection refused|timed out|Status code: 50[0-9]'
mismatch="checksum doesn't match|Checksum error"

makecache_alone() {
  rm -rf "$staging/cache"
  LC_ALL=C dnf -q -y --setopt=reposdir="$staging/repos" --setopt=cachedir="$staging/cache" --setopt=keepcache=False \
    --setopt=skip_if_unavailable=False --setopt=retries=1 --disablerepo='*' --enablerepo="$id" makecache --refresh \
    >"$staging/said" 2>&1
}

try() {
  for pause in 2 6 0; do
    makecache_alone && return 0
    grep -qE "$network|$mismatch" "$staging/said" || break
    sleep "$pause"
  done
  fail "$(explain)"
}

words() {
  grep -hE "$1" "$staging/said" | sed -E 's/^ +(- )?//' | head -n 1
}

explain() {
  if grep -qiE 'certificate|Curl error \(60\)' "$staging/said"; then
    off=$(clock_off "$url")
    echo "$(words 'ertificate|Curl error'); ${off:-the clocks of this host and the server agree}"
  elif grep -qE "$mismatch" "$staging/said"; then
    echo "hash mismatch: its package list is not the one that its index names (a mirror in the middle of its update)"
    words "$mismatch"
  elif grep -qE "$network" "$staging/said"; then
    echo "unreachable: $(words "$network")"
  else
    tail -n 3 "$staging/said"
  fi
}

main() {
  url=$1 key_url=$2 fingerprints=$3 key_sha256=$4 key_file=$5 repo=$6 text=$7; shift 7
  stage
  fetch_key
  check_key
  mkdir "$staging/repos"
  printf '%s' "$text" >"$staging/repos/try.repo"
  id=$(sed -n 's/^\[\(.*\)\]$/\1/p' "$staging/repos/try.repo")
  try
  # From Enterprise Linux 9 on rpm refuses keys that vouch for themselves with SHA-1.
  rpm -q gpg-pubkey >"$staging/keys"
  said=$(rpmkeys --import "$staging/key" 2>&1) || fail "rpm refuses the key ${fingerprints:-of $key_url}: $said"
  # Uninstalling takes out again what was not there before.
  rpm -q gpg-pubkey | grep -vxF -f "$staging/keys" >>/var/lib/rackserve/packages-added
  put "$staging/key" "$key_file"
  set_all_aside "$@"
  put "$staging/repos/try.repo" "$repo"
}

main "$@" </dev/null
