"""Wheels of a stand-in for SGLang and of PyTorch in name only, and the catalogue that says where they are.

The stand-in takes its options, environment and checkpoint as the real one does; see rackserve/lab/standins/sglang.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from rackserve.lab.elf import STANDINS
from tests.operations.environment_bench import torch, wheel

VERSION, CUDA = "0.5.23", "13.0"
CATALOGUE = """\
[models.tiny-checkpoint]
repo = "{repo}"
license = "none: random weights"
source = "written by rackserve on this machine"
date = "2026-11-27"
checkpoints = [{{ quantization = "none", repo = "{repo}", revision = "{revision}" }}]

[models.tiny-checkpoint.config]
{config}

[requirements."sglang-{version}-cuda"]
runtime = "sglang"
version = "{version}"
backend = "cuda"
family = "{cuda}"
file = "{file}"
architectures = ["x86_64"]
glibc = "2.34"
python_min = "3.11"
python_before = "3.13"
installed_gib = 1
source = "wheels of stand-ins"
date = "2026-11-27"
"""


def wheels(folder: Path, cuda: str | None) -> list[Path]:
    """SGLang's wheel, and PyTorch's that says it was built for this release of CUDA; None: for the CPU."""
    files = {
        "sglang/__init__.py": "",
        "sglang/launch_server.py": (STANDINS / "sglang").read_text(),
        # Not by its own name: what is left of the service `chat` is looked for by that word.
        "sglang/serving.py": (STANDINS / "chat_server.py").read_text(),
    }
    folder.mkdir(parents=True)
    paths = []
    for name, content in (wheel("sglang", VERSION, files, "Requires-Dist: torch\n"), torch(cuda)):
        path = folder / name
        path.write_bytes(content)
        paths.append(path)
    return paths


def requirements(base_url: str, *files: Path) -> str:
    """What pins these wheels to where they are and to their bytes."""
    pins = ((file.name.partition("-")[0], file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files)
    return "".join(f"{name} @ {base_url}/{file} \\\n    --hash=sha256:{digest}\n" for name, file, digest in pins)


def catalogue(repo: str, revision: str, checkpoint: Path, pinned: Path) -> str:
    """The model, and SGLang by the requirements in `pinned`, which lies beside the catalogue."""
    config = json.loads((checkpoint / "config.json").read_text())
    listed = "\n".join(f"{key} = {json.dumps(value)}" for key, value in config.items())
    return CATALOGUE.format(repo=repo, revision=revision, config=listed, version=VERSION, cuda=CUDA, file=pinned.name)
