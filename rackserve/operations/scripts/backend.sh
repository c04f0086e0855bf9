# backend.sh: part of the scripts that make a release. Without its backend llama-server serves from the CPU and says so
# in a line of its log only: a release archive loads backends at run time and goes on where one cannot be loaded.

# What a program with this backend links, and the part of the backend's own file name.
# The CUDA driver's library is not in the list: it comes with the driver, which may not be there yet.
links() {
  case $1 in
    cuda) library=libcublas.so part=cuda ;;
    rocm) library=libhipblas.so part=hip ;;
    vulkan) library=libvulkan.so part=vulkan ;;
    sycl) library=libsycl.so part=sycl ;;
    *) return 1 ;;
  esac
}

# check_program PROGRAM BACKEND: fail and say why, unless the program runs and has the backend.
check_program() {
  program=$1 backend=$2 missing=
  [ "$backend" = cpu ] || check_links || return 1
  # A program that is linked to the CUDA driver cannot start before that is there.
  case $missing in *libcuda.so.1*) return 0 ;; esac
  said=$("$program" --version 2>&1) || { echo "llama-server does not run on this host: $said"; return 1; }
}

# Sets `missing` to what the program itself lacks.
check_links() {
  links "$backend" || { echo "it cannot be told of a program whether it has $backend"; return 1; }
  missing=$(LC_ALL=C ldd "$program" 2>&1 | grep 'not found')
  module=$(find "$(dirname "$(readlink -f "$program")")" -name "libggml-$part.so*" | head -n 1)
  linked=$({ LC_ALL=C ldd "$program"; [ -z "$module" ] || LC_ALL=C ldd "$module"; } 2>&1)
  case $linked in
    *"$library"*) ;;
    *) echo "llama-server has no $backend in it: nothing links $library"; return 1 ;;
  esac
  lacking=$(echo "$linked" | sed -n 's/^[[:space:]]*//; /^libcuda\.so\.1 /d; /not found/p' | sort -u | head -n 4)
  [ -z "$lacking" ] || { echo "llama-server cannot use $backend on this host: $lacking"; return 1; }
}
