# uv.sh RELEASE WORK: uv from the Python package index in the folder RELEASE, checked against its hash, complete or not at
# all. WORK/environments/ has the requirements file of RELEASE's name.
# shellcheck disable=SC2154 # release, name and staging are set by staging.sh, which stands before this

# A system that was upgraded has another Python, for which what is installed here is not there.
works() {
  "$release/bin/uv" --version && "$release/bin/python" -m pip --version
} >/dev/null 2>&1

main() {
  work=$2
  umask 022
  begin "$1" works
  log=$work/environments/$name.log
  /usr/bin/python3 -m venv "$staging" >"$log" 2>&1 || fail "no virtual environment for $name: $(tail -n 5 "$log")"
  export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
  "$staging/bin/python" -m pip install --quiet --require-hashes --only-binary :all: \
    --requirement "$work/environments/$name.txt" >"$log" 2>&1 || fail "not installed: $name: $(tail -n 12 "$log")"
  rm -f "$log"
  finish
}

main "$@" </dev/null
