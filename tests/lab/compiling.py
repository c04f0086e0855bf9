"""A runtime that compiles as it starts, from the compilers among the catalogue's own pins, and then answers.

What stands for vLLM is a few lines that compile, in the service's own process, what the real one compiles as it starts.
nvcc, its headers, FlashInfer and ninja are the real ones, of the versions that the catalogue pins.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from rackserve.catalog.loader import load_catalog
from rackserve.lab.elf import STANDINS
from tests.lab.checkpoints import pinned_at
from tests.lab.vllm_wheel import HOST, PINNED
from tests.operations.environment_bench import torch, wheel

VERSION = "0.32.0"
COMPILERS = {"ninja", "nvidia-cuda-cccl", "nvidia-cuda-crt", "nvidia-cuda-nvcc", "nvidia-cuda-runtime", "nvidia-nvvm"}
# What flashinfer.jit imports, and what PyTorch asks for.
FLASHINFER = {"apache-tvm-ffi", "filelock", "flashinfer-python", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx"}
FLASHINFER |= {"certifi", "charset-normalizer", "idna", "numpy", "nvidia-ml-py", "packaging", "requests", "setuptools"}
# Of this one a header.
FLASHINFER |= {"nvidia-curand"}
FLASHINFER |= {"sympy", "tqdm", "typing-extensions", "urllib3"}
# The rest of what FlashInfer asks for: 2 GB that its sampler has no need of.
WITHOUT = ["click", "cuda-python", "cuda-tile", "einops", "nccl-extensions", "nccl4py", "nvidia-cudnn-frontend"]
WITHOUT += ["nvidia-cutlass-dsl", "tabulate"]
SERVER = """\
import argparse
import threading

from vllm.compiling import compiled
from vllm.serving import Handler, completion, listening, until_told


def main():
    parser = argparse.ArgumentParser()
    for name in ("command", "model", "--host", "--port"):
        parser.add_argument(name)
    options, _ = parser.parse_known_args()
    print("compiled", compiled(), flush=True)
    slots = threading.Semaphore(2)

    class Server(Handler):
        def get(self, path):
            return 200, ""

        def post(self, path, body):
            return 200, completion(body, -1, slots)

    until_told(listening(Server, options.host, int(options.port)))
"""
SAMPLER = """\
import os

# There is no card to ask.
os.environ["FLASHINFER_CUDA_ARCH_LIST"] = "9.0a"
from flashinfer.jit.sampling import gen_sampling_module


def compiled():
    module = gen_sampling_module()
    module.build(verbose=True)
    return module.get_library_path()
"""
# As FlashInfer does it: each file by nvcc, the library by c++, started by ninja.
PLAIN = """\
import mmap
import os
import subprocess
from pathlib import Path

# What a process has mapped tells which environment it runs from.
MAPPED = mmap.mmap(os.open(__file__, os.O_RDONLY), 0, prot=mmap.PROT_READ)
KERNEL = '''
#include <cub/block/block_reduce.cuh>
#include <cuda.h>
#include <cuda_runtime.h>
__global__ void sum(float *out) {
  __shared__ cub::BlockReduce<float, 32>::TempStorage shared;
  float all = cub::BlockReduce<float, 32>(shared).Sum(rsqrtf(threadIdx.x + 1.0f));
  if (threadIdx.x == 0) *out = all;
}
extern "C" int run(float *out) {
  sum<<<1, 32>>>(out);
  return cuInit(0) + cudaDeviceSynchronize();
}
'''
NINJA = '''
rule nvcc
  command = nvcc -gencode=arch=compute_90a,code=sm_90a --compiler-options=-fPIC -c $in -o $out
rule link
  command = c++ $in -shared -L$cuda/lib64 -L$cuda/lib64/stubs -lcudart -lcuda -o $out
build kernel.o: nvcc kernel.cu
build kernel.so: link kernel.o
'''


def compiled():
    folder = Path(os.environ["XDG_CACHE_HOME"], "kernels")
    folder.mkdir(exist_ok=True)
    (folder / "kernel.cu").write_text(KERNEL)
    (folder / "build.ninja").write_text(f"cuda = {os.environ['CUDA_HOME']}\\n{NINJA}")
    subprocess.run(["ninja", "-v"], cwd=folder, check=True)
    return folder / "kernel.so"
"""


def pins(requirements: str, names: set[str]) -> str:
    """What an entry of the catalogue pins of these, hashes and all."""
    text = load_catalog().requirements[requirements].text
    found = {name: re.findall(rf"(?m)^{name}==.*\\\n(?: +--hash=.*\n)+", text) for name in names}
    return "".join(pin for listed in found.values() for pin in listed)


def wheels(folder: Path, *, flashinfer: bool) -> list[Path]:
    """The server's wheel and PyTorch's: its build for CPUs where FlashInfer imports it, else one in name only."""
    files = {
        "vllm/__init__.py": SERVER,
        "vllm/compiling.py": SAMPLER if flashinfer else PLAIN,
        "vllm/serving.py": (STANDINS / "chat_server.py").read_text(),
    }
    made = [wheel("vllm", f"{VERSION}+cpu", files, "Requires-Dist: torch\n", "vllm = vllm:main")]
    if not flashinfer:
        made.append(torch())
    folder.mkdir(parents=True)
    for name, content in made:
        (folder / name).write_bytes(content)
    if flashinfer:
        wanted = folder / "wanted.txt"
        wanted.write_text("".join(re.findall(r"(?m)^torch==.* \\\n +--hash=.*\n", PINNED.read_text(encoding="utf-8"))))
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", *HOST]
        subprocess.run([*command, "--only-binary", ":all:", "--dest", folder, "-r", wanted], check=True, timeout=600)
    return sorted(folder.glob("*.whl"))


def requirements(entry: str, base_url: str, files: list[Path], *, flashinfer: bool) -> str:
    """Requirements of a release that compiles, from this entry's pins."""
    return pins(entry, COMPILERS | FLASHINFER if flashinfer else COMPILERS) + pinned_at(base_url, *files)
