# user-mac.sh ACCOUNT HOME: have a hidden system account without a login, with a group of its own and a private folder.

# From 499 down: ids below 500 are not shown at login, and macOS gives itself more of them from below with each release.
free_id() {
  taken=" $({ dscl . -list /Users UniqueID; dscl . -list /Groups PrimaryGroupID; } | awk '{print $NF}' | tr '\n' ' ')"
  id=499
  while [ "$id" -ge 400 ]; do
    case $taken in
      *" $id "*) id=$(( id - 1 )) ;;
      *) echo "$id"; return ;;
    esac
  done
  return 1
}

# set_record KIND KEY VALUE
set_record() {
  said=$(dscl . -create "/$1/$account" "$2" "$3" 2>&1) && return 0
  fail "macOS does not let $account be made ($1 $2): $said; where it says eDSPermissionError, allow full disk access for \
remote users (System Settings, General, Sharing, Remote Login)"
}

main() {
  account=$1 home=$2
  umask 022
  id=$(free_id) || fail "no id from 400 to 499 is free for $account"
  if [ -z "$(known Groups "$account" PrimaryGroupID)" ]; then
    set_record Groups PrimaryGroupID "$id"
    set_record Groups Password '*'
  fi
  # The record and its id in one step: changing the id of a user that is there already is what macOS guards.
  [ -n "$(known Users "$account" UniqueID)" ] || set_record Users UniqueID "$id"
  set_record Users PrimaryGroupID "$(known Groups "$account" PrimaryGroupID)"
  set_record Users UserShell /usr/bin/false
  set_record Users RealName "$account"
  set_record Users Password '*'
  set_record Users IsHidden 1
  # Guarded as well, and of no use to a daemon that is told its HOME.
  dscl . -create "/Users/$account" NFSHomeDirectory /var/empty 2>/dev/null || :
  # Names are looked up through a cache, which may know that there is no such user.
  dscacheutil -flushcache
  mkdir -p "$home"
  chmod 700 "$home"
  chown "$account:$account" "$home" || fail "$account was made, but macOS does not know the name"
}

main "$@" </dev/null
