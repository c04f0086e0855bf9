"""Wheels of a stand-in for SGLang and of PyTorch in name only, and what pins them.

The stand-in takes its options, environment and checkpoint as the real one does; see rackserve/lab/standins/sglang.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from rackserve.lab.elf import STANDINS
from tests.operations.environment_bench import torch, wheel

VERSION, CUDA = "0.5.23", "13.0"


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
