# toolkit.sh: part of the script that makes a release of a Python runtime. nvcc, FlashInfer, tilelang and PyTorch look for
# a CUDA toolkit as NVIDIA's installer lays it out: CUDA_HOME with bin, include, nvvm, lib64/libcudart.so and
# lib64/stubs/libcuda.so. The wheels have all of it but the stub, in other folders and without those names, so the release
# gets a folder of links. They are relative: a release is made under another name than it gets.

# wheels_toolkit ENVIRONMENT: the folder below ENVIRONMENT that the wheels have nvcc's folder in. There is none in those for
# CUDA 12, which hold ptxas only.
wheels_toolkit() {
  (cd "$1" && ls -d lib/python3*/site-packages/nvidia/*/bin/nvcc 2>/dev/null) | sed -n 's,/bin/nvcc$,,p' | tail -n 1
}

has_nvcc() {
  [ -n "$(wheels_toolkit "$1")" ]
}

# link_each THEIRS OURS: a link in $folder/OURS for each entry of the wheels' folder THEIRS.
link_each() {
  up=$(echo "$2/" | sed 's,[^/]*/,../,g')..
  mkdir -p "$folder/$2"
  for entry in "$environment/$home/$1"/*; do
    ln -s "$up/$home/$1/$(basename "$entry")" "$folder/$2/"
  done
}

# glibc 2.42 brought rsqrt() and says that it throws nothing. CUDA says so since 13.2; what is compiled with the headers of
# an older one stops at the difference (tried: 13.0 on glibc 2.43). The declarations as 13.2 has them.
mend_rsqrt() {
  header=include/crt/math_functions.h
  grep -q 'rsqrt(double x);' "$environment/$home/$header" || return 0
  rm "$folder/include/crt"
  link_each include/crt include/crt
  rm "$folder/$header"
  sed -E -e 's/(rsqrtf?\((double|float) x\));/\1 RACKSERVE_RSQRT;/' \
    -e 's/^(__func__\((double|float) rsqrtf?\((double|float) a\))\);/\1 RACKSERVE_RSQRT);/' \
    -e '/include <features.h>/a #  if __GLIBC_PREREQ(2, 42)\n#    define RACKSERVE_RSQRT noexcept(true)\n#  else\n#    define RACKSERVE_RSQRT\n#  endif' \
    "$environment/$home/$header" >"$folder/$header"
}

# Linkers ask for libNAME.so, wheels have libNAME.so.13.
link_names() {
  for library in "$folder"/lib64/lib*.so.*; do
    plain=${library%%.so.*}.so
    [ -L "$plain" ] || ln -s "$(basename "$library")" "$plain"
  done
}

# The host's gcc of release $1 under the names that compilers are called by: bin stands first on PATH.
link_gcc() {
  for name_of in gcc:gcc cc:gcc g++:g++ c++:g++; do
    program=/usr/bin/${name_of#*:}-$1
    [ -x "$program" ] || { echo "$program is not there"; return 1; }
    ln -s "$program" "$folder/bin/${name_of%:*}"
  done
}

# make_stub CC: what programs that use the driver's libcuda are linked with. Not a link to the driver's own, which a host
# may get later, have elsewhere, or lose. It is never loaded: its soname is the driver's, libcuda.so.1, and no program is
# told to look in here. It has the driver's functions because a linker that is told --as-needed, as Ubuntu's is, drops a
# library that has nothing of what is asked for. 34 is CUDA_ERROR_STUB_LIBRARY, what NVIDIA's own stub returns.
make_stub() {
  mkdir "$folder/lib64/stubs"
  headers=$environment/$home/include
  # Some functions have another name where each thread has a stream of its own.
  { "$1" -E -P -I "$headers" "$headers/cuda.h" && "$1" -E -P -DCUDA_API_PER_THREAD_DEFAULT_STREAM -I "$headers" "$headers/cuda.h"; } |
    grep -oE '\bcu[A-Z][A-Za-z0-9_]* *\(' | tr -d ' (' | sort -u | sed 's/.*/int &(void) { return 34; }/' |
    "$1" -shared -fPIC -Wl,-soname,libcuda.so.1 -x c -o "$folder/lib64/stubs/libcuda.so" -
}

# make_toolkit ENVIRONMENT FOLDER GCC: FOLDER, which becomes ENVIRONMENT/cuda. GCC: the release of the host's gcc that this
# nvcc accepts, empty where it accepts the one that is called gcc.
# nvcc looks for all else beside the name that it was called by (nvcc --dryrun, 13.0): `bin` is a folder, not a link to one.
make_toolkit() {
  environment=$1 folder=$2
  home=$(wheels_toolkit "$environment")
  link_each bin bin
  link_each lib lib64
  link_names
  # nvcc.profile of CUDA 13 says so for what nvcc itself starts.
  ln -s lib64 "$folder/lib"
  ln -s "../$home/nvvm" "$folder/nvvm"
  link_each include include
  mend_rsqrt
  [ -z "$3" ] || link_gcc "$3" || return 1
  make_stub "${3:+/usr/bin/gcc-}${3:-gcc}" && [ -s "$folder/lib64/stubs/libcuda.so" ]
}
