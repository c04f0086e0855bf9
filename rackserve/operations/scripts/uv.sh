# uv.sh RELEASE WORK: uv from the Python package index in the folder RELEASE, checked against its hash, complete or not at
# all. WORK/environments/ has the requirements file of RELEASE's name.

fail() {
  echo "$1" >&2
  rm -rf "$staging"
  exit 1
}

# A system that was upgraded has another Python, for which what is installed here is not there.
works() {
  "$release/bin/uv" --version && "$release/bin/python" -m pip --version
}

main() {
  release=$1 work=$2
  umask 022
  name=$(basename "$release")
  staging=$(dirname "$release")/.staging-$name
  log=$work/environments/$name.log
  exec 9>"$work/uv.lock"
  flock -w 7200 9 || { echo "not installed: $name: another run has been installing for two hours" >&2; exit 1; }
  works >/dev/null 2>&1 && exit 0
  rm -rf "$staging"
  mkdir -p "$(dirname "$release")"
  /usr/bin/python3 -m venv "$staging" >"$log" 2>&1 || fail "no virtual environment for $name: $(tail -n 5 "$log")"
  export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
  "$staging/bin/python" -m pip install --quiet --require-hashes --only-binary :all: \
    --requirement "$work/environments/$name.txt" >"$log" 2>&1 || fail "not installed: $name: $(tail -n 12 "$log")"
  chmod -R a+rX,go-w "$staging"
  sync -f "$staging"
  rm -rf "$release" "$log"
  mv -T "$staging" "$release"
}

main "$@" </dev/null
