"""Wheels of a stand-in for SGLang and of PyTorch in name only.

The stand-in takes its options, environment and checkpoint as the real one does; see rackserve/lab/standins/sglang.
"""

from __future__ import annotations

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
