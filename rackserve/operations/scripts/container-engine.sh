# container-engine.sh ENGINE: tell docker or containerd of the GPUs; restart it only if that changed its settings.

fail() {
  echo "$1" >&2
  exit 1
}

settings() {
  cat /etc/docker/daemon.json /etc/containerd/config.toml /etc/containerd/conf.d/99-nvidia.toml 2>/dev/null | sha256sum
}

main() {
  engine=$1
  before=$(settings)
  said=$(nvidia-ctk runtime configure --runtime="$engine" --cdi.enabled 2>&1) || fail "$engine not configured: $said"
  if [ "$before" != "$(settings)" ]; then
    systemctl restart "$engine" || fail "$engine does not start with its new settings: journalctl -u $engine"
    echo "$engine restarted, and its containers with it unless live-restore is on"
  fi
}

main "$@" </dev/null
