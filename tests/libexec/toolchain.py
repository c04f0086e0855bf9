"""A CUDA toolkit as far as a host's own compiler can stand in for it: nvcc, headers and libraries that really link."""

from __future__ import annotations

import subprocess
from pathlib import Path

# Takes out what g++ does not know of CUDA, and tells its release as nvcc does.
NVCC = """#!/bin/sh
here=$(dirname "$0") compiler=g++
while [ $# -gt 0 ]; do
  case $1 in
    -ccbin) compiler=$2; shift ;;
    -c) source=$2; shift ;;
    -o) object=$2; shift ;;
  esac
  shift
done
sed -e 's/__global__//' -e 's/<<<[^>]*>>>//' "$source" |
  "$compiler" -x c++ -fPIC -D__CUDACC_VER_MINOR__=0 -I"$here/../include" -c - -o "$object"
"""
INCOMPATIBLE = "CUDA compiler and CUDA toolkit headers are incompatible, please check your include paths"
HEADERS = {
    "cuda.h": 'extern "C" int cuDriverGetVersion(int *);\n',
    "cuda_runtime.h": 'extern "C" int cudaGetLastError(void);\nstatic struct { unsigned x; } threadIdx;\n',
    "cuda_runtime_api.h": "#define CUDART_MINOR 0\n",
    "curand_kernel.h": "\n",
    # As CCCL's own cuda_toolkit.h does it.
    "cuda/std/type_traits": "#include <cuda_runtime_api.h>\n#if CUDART_MINOR != __CUDACC_VER_MINOR__\n"
    f'#error "{INCOMPATIBLE}"\n#endif\n',
}
LIBRARIES = {
    "libcudart.so.13": "int cudaGetLastError(void) { return 0; }\n",
    "libcuda.so.1": "int cuDriverGetVersion(int *version) { *version = 13000; return 0; }\n",
}
# Builds what compile-check has it build, and says what ninja says.
NINJA = """#!/usr/bin/python3
import subprocess, sys
lines = open("build.ninja").read().splitlines()
rules = {}
for one, two in zip(lines, lines[1:]):
    if one.startswith("rule "):
        rules[one.split()[1]] = two.split(" = ", 1)[1]
for line in lines:
    if line.startswith(f"build {sys.argv[1]}: "):
        rule, source = line.split(": ")[1].split()
        command = rules[rule].replace("$in", source).replace("$out", sys.argv[1])
        print(f"[1/1] {command}", flush=True)
        done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            print(f"FAILED: [code={done.returncode}] {sys.argv[1]}\\n{command}\\n{done.stdout}", end="")
            print("ninja: build stopped: subcommand failed.")
            sys.exit(1)
        sys.exit(0)
sys.exit(f"ninja: error: unknown target {sys.argv[1]!r}")
"""


def library(name: str, folder: Path) -> bytes:
    """A shared library of this name, made by the host's own compiler."""
    made = folder / name
    command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-x", "c", "-", "-o", made]
    subprocess.run(command, input=LIBRARIES[name], text=True, check=True)
    return made.read_bytes()


def toolkit(folder: Path) -> None:
    """CUDA_HOME, as a release has it."""
    texts = {"bin/nvcc": NVCC, **{f"include/{name}": text for name, text in HEADERS.items()}}
    for path, text in texts.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "bin/nvcc").chmod(0o755)
    for name, place in (("libcudart.so.13", "lib64/libcudart.so"), ("libcuda.so.1", "lib64/stubs/libcuda.so")):
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(library(name, path.parent))
