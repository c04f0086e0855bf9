# transfer.sh: part of the scripts that fetch a file. What has come of `url` is in the file `part`. For files of a model
# hub, and no others, `rackserve_hub_token=TOKEN` stands before it; TOKEN may be empty.
# shellcheck disable=SC2154 # url and part are set by the script

transfer() {
  curl --fail --location --silent --show-error --connect-timeout 15 --retry 3 --retry-delay 2 \
    --speed-limit 1024 --speed-time 60 "$@" --output "$part" -- "$url" 2>"$part.error"
}

# Standard input, because anybody can read arguments. curl keeps the header from hosts that it is sent on to.
with_token() {
  printf 'Authorization: Bearer %s\n' "$rackserve_hub_token" | transfer --header @- "$@"
}

get() {
  rc=0
  if [ -n "${rackserve_hub_token:-}" ]; then
    with_heartbeat said_so_far with_token "$@" || rc=$?
  else
    with_heartbeat said_so_far transfer "$@" || rc=$?
  fi
}

download() {
  get --continue-at -
  # 33: the server cannot resume; 36 and HTTP 416: what is there is no beginning of this file. Start it over.
  if [ "$rc" = 33 ] || [ "$rc" = 36 ] || grep -q 'error: 416' "$part.error"; then
    rm -f "$part"
    get
  fi
  message=$(tail -n 1 "$part.error")
  rm -f "$part.error"
  [ "$rc" = 0 ] || fail "not fetched: $url: ${message:-curl failed with $rc}$(hint)"
}

# What the operator can do about a model that is given out to some only.
hint() {
  case ${rackserve_hub_token-none}/$message in
    none/*) ;;
    /*"error: 401"* | /*"error: 403"*)
      echo "; it asks who fetches it, or is not there: name a file with a token that may read it as hf_token_file" ;;
    *"error: 401"* | *"error: 403"*) echo "; the token in hf_token_file may not read it: ask for access to it" ;;
  esac
}
