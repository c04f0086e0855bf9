# cdi.sh UNIT COUNT: have the toolkit write the CDI specification of COUNT GPUs, and keep it fresh.

fail() {
  echo "$1" >&2
  exit 1
}

main() {
  unit=$1 count=$2
  # A specification that somebody generated once hides the fresh one and names a driver that is gone.
  if [ -e /etc/cdi/nvidia.yaml ]; then
    mv -fT /etc/cdi/nvidia.yaml /etc/cdi/nvidia.yaml.disabled-by-rackserve
    echo "moved aside: /etc/cdi/nvidia.yaml"
  fi
  systemctl daemon-reload
  mkdir -p /var/lib/rackserve
  if [ "$(systemctl is-enabled "$unit" 2>/dev/null)" = disabled ]; then
    echo "$unit" >>/var/lib/rackserve/units-enabled
  fi
  systemctl enable --quiet --now "$unit" || fail "$unit cannot be enabled: does this version of the toolkit have it?"
  service=${unit%.*}.service
  # It starts by itself on changes of the driver only, and this may be the first time it sees one.
  systemctl restart "$service" || fail "$service failed: $(journalctl --unit "$service" --lines 5 --output cat --no-pager)"
  found=$(nvidia-ctk --quiet cdi list 2>/dev/null | grep -c '^nvidia.com')
  [ "$found" -gt "$count" ] || fail "the CDI specification names $found devices for $count GPUs: nvidia-ctk cdi list"
}

main "$@" </dev/null
