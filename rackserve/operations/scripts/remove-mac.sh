# remove-mac.sh ROOT NAME SECONDS: stop a service and remove its daemon, key, account and scratch folder. Models stay.
# SECONDS: that it may take to stop. ROOT is empty on a host.

# An account without a login is no danger: what is left of it is told, and ends nothing.
delete() {
  dscl . -read "/$1/$account" >/dev/null 2>&1 || return 0
  said=$(dscl . -delete "/$1/$account" 2>&1) ||
    echo "$account stays in $1: $said; macOS lets no remote session delete it without full disk access: at the screen, \
sudo dscl . -delete /$1/$account"
}

main() {
  root=$1 name=$2 seconds=$3
  account=_rackserve-$name
  stop_service "$root" "$name" "$seconds"
  # Its key, and whatever its runtime has beside: each kind of it is a folder with a file or folder for each service.
  rm -rf "$root"/etc/rackserve/*/"$name" "$root"/etc/rackserve/*/"$name".*
  rm -rf "$root/var/lib/rackserve/$name" "$root/var/log/rackserve/$name.log"* "$root/var/run/rackserve/$name.health"
  delete Users
  delete Groups
  # Last: as long as the daemon's file is there, the next run knows that there is something left to remove.
  rm -f "$root/Library/LaunchDaemons/io.rackserve.$name.health.plist"
  rm -f "$root/Library/LaunchDaemons/io.rackserve.$name.plist"
}

main "$@" </dev/null
