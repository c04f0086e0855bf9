# image.sh LIST IMAGE GIB KEEP CACHES WANTED...: have an image, named by its digest, in podman's store.
# GIB is the room that it takes there on its way and unpacked, 0 where that is not known. LIST is a file with the images
# that were pulled by this script: of these the newest KEEP stay, and all that are WANTED. What services have compiled with
# an image is in CACHES/SERVICE/images, below the first digits of its digest, and goes with it.

fail() {
  echo "$1" >&2
  exit 1
}

used_mib() {
  df -Pm "$store" | awk 'NR == 2 {print $3}'
}

said_so_far() {
  echo "$(( $(used_mib) - before )) MiB of $image"
}

pull() {
  podman pull --quiet "$image" >"$log" 2>&1
}

# without IMAGE: the list has it no more.
without() {
  grep -vxF "$1" "$list" >"$list.new"
  mv -fT "$list.new" "$list"
}

# drop_caches DIGITS
drop_caches() {
  [ ! -d "$caches" ] || find "$caches" -mindepth 3 -maxdepth 3 -type d -path "$caches/*/images/$1" -prune -execdir rm -rf {} \;
}

# What is in the list and no longer wanted goes, the oldest first; one that a container still runs is tried again later.
prune() {
  surplus=$(( $(wc -l <"$list") - keep ))
  while [ "$surplus" -gt 0 ] && read -r old; do
    surplus=$(( surplus - 1 ))
    case " $wanted " in *" $old "*) continue ;; esac
    if podman rmi "$old" >/dev/null 2>&1 || ! podman image exists "$old"; then
      without "$old"
      echo "removed: $old"
      drop_caches "$(printf %.12s "${old##*:}")"
    fi
  done <<LISTED
$(cat "$list")
LISTED
}

main() {
  list=$1 image=$2 gib=$3 keep=$4 caches=$5
  shift 5
  wanted=$*
  store=$(podman info --format '{{.Store.GraphRoot}}' 2>&1) || fail "podman does not work: $store"
  free=$(( $(df -Pm "$store" | awk 'NR == 2 {print $4}') / 1024 ))
  [ "$gib" -le "$free" ] ||
    fail "not pulled: $image: $(df -P "$store" | awk 'NR == 2 {print $6}') has $free GiB free, $gib GiB are needed"
  mkdir -p "$(dirname "$list")"
  # A run that lost its connection may still be at it.
  exec 9<"$(dirname "$list")"
  take_lock 7200 || fail "not pulled: $image: another run has been pulling for two hours"
  # Before it comes: of a run that dies after that nobody would know that it is ours. The newest is the last.
  touch "$list"
  without "$image"
  echo "$image" >>"$list"
  before=$(used_mib)
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  # What came whole of an earlier try is used.
  if ! with_heartbeat said_so_far pull; then
    podman image exists "$image" || without "$image"
    fail "not pulled: $image: $(grep -v '^$' "$log" | tail -n 1)"
  fi
  podman image exists "$image" || fail "not pulled: podman has no $image afterwards"
  prune
}

main "$@" </dev/null
