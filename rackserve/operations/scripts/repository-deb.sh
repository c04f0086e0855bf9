# repository-deb.sh URL KEY_URL FINGERPRINTS KEY_SHA256 KEYRING SOURCES TEXT [FILE WHERE]...: add an apt repository.
# FINGERPRINTS are one word, KEY_SHA256 may be empty. SOURCES is written with TEXT. FILE and WHERE: see set_aside.
# It is tried by itself first: a host's apt works on as it did where anything is wrong with it.
# shellcheck disable=SC2154 # staging comes from repository.sh, which stands before this

network='Could not (resolve|connect|handshake)|Unable to connect|Cannot initiate|Connection (refused|timed out|failed|reset)|Temporary failure|unreachable|No route to host|  50[0-9]  '
mismatch='Hash Sum mismatch|unexpected size|Mirror sync in progress'

update_alone() {
  rm -rf "$staging/lists" "$staging/cache"
  mkdir -p "$staging/lists/partial" "$staging/cache/archives/partial"
  # Its own lists have a lock of their own, and no list of an earlier day hides a bad signature. The staging folder is
  # closed to the user that apt fetches as.
  LC_ALL=C apt-get -q -o Dir::Etc::sourcelist="$staging/try.sources" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State::lists="$staging/lists" -o Dir::Cache="$staging/cache" -o APT::Sandbox::User=root \
    -o APT::Update::Error-Mode=any -o Acquire::Languages=none update >"$staging/said" 2>&1
}

try() {
  for pause in 2 6 0; do
    update_alone && return 0
    grep -qE "$network|$mismatch" "$staging/said" || break
    sleep "$pause"
  done
  fail "$(explain)"
}

said() {
  grep -qE "$1" "$staging/said"
}

words() {
  grep -hE "$1" "$staging/said" | sed -E 's/^(E|W|N): *//; s/^ +//' | awk '!seen[$0]++' | head -n "${2:-1}"
}

# The first checksum of either side, as apt lists them under its message.
checksums() {
  awk '/Hashes of (expected|received)/ {side = $3} / - SHA/ && side != "" && !seen[side]++ {print side ": " $2}' "$staging/said"
}

explain() {
  if said 'SHA1 is not considered secure|Policy rejected'; then
    echo "apt refuses the signature: the key $fingerprints vouches for itself with SHA-1, which apt's sqv takes no more since 2026-02-01"
    echo "use the repository that the vendor has for this very release of the system, whose key is newer; apt said: $(words 'SHA1|Policy rejected')"
  elif said 'NO_PUBKEY|BADSIG|REVKEYSIG|EXPKEYSIG|Missing key|is not signed|signatures (could|were)'; then
    echo "bad signature: expected it by ${fingerprints:-the key of SHA-256 $key_sha256}"
    echo "apt found: $(words 'NO_PUBKEY|BADSIG|REVKEYSIG|EXPKEYSIG|Missing key' || :)$(said 'NO_PUBKEY|BADSIG|SIG|Missing key' || words 'is not signed')"
  elif said 'is expired|is not valid yet|certificate'; then
    off=$(clock_off "$url")
    echo "$(words 'is expired|is not valid yet|certificate'); ${off:-the clocks of this host and the server agree, so it is the mirror}"
  elif said "$mismatch"; then
    echo "hash mismatch: its package list is not the one that was signed (a mirror in the middle of its update, or somebody changed it)"
    words "$mismatch"
    checksums
  elif said "$network"; then
    echo "unreachable: $(words "$network")"
  else
    words '^(E|W):|^  [^ ]' 3
  fi
}

main() {
  url=$1 key_url=$2 fingerprints=$3 key_sha256=$4 keyring=$5 sources=$6 text=$7; shift 7
  stage
  fetch_key
  check_key
  # apt takes the binary form everywhere; what is binary already stays as it is.
  if grep -q 'BEGIN PGP PUBLIC KEY BLOCK' "$staging/key"; then
    gpg --homedir "$staging/gnupg" --batch --yes --output "$staging/keyring.gpg" --dearmor "$staging/key" || fail "$key_url is no key"
  else
    cp "$staging/key" "$staging/keyring.gpg"
  fi
  printf '%s' "$text" >"$staging/sources"
  sed "s|^Signed-By:.*|Signed-By: $staging/keyring.gpg|" "$staging/sources" >"$staging/try.sources"
  try
  # A run that dies in between leaves a key that nobody names, or a repository less; the next run goes on from there.
  put "$staging/keyring.gpg" "$keyring"
  [ -z "$key_sha256" ] || put "$staging/key" "${keyring%.gpg}.asc"
  set_all_aside "$@"
  put "$staging/sources" "$sources"
}

main "$@" </dev/null
