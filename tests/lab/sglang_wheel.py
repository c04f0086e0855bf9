"""Wheels of a stand-in for SGLang and of PyTorch in name only.

The stand-in takes its options, environment and checkpoint as the real one does; see rackserve/lab/standins/sglang.
"""

from __future__ import annotations

from pathlib import Path

from rackserve.lab.elf import STANDINS
from rackserve.lab.lab import Lab
from tests.lab.archive_sites import WAY
from tests.lab.checkpoints import offer_checkpoint, pinned_at, requirements_entry
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


def offer(lab: Lab, folder: Path) -> None:
    """Wheels for CUDA and for the CPU in the depot, and in `folder` a catalogue of each with its model."""
    model = offer_checkpoint(lab, folder)
    for name, cuda in (("cuda", CUDA), ("cpu", None)):
        files = wheels(lab.depot_dir / WAY / name, cuda)
        pinned = folder / f"{name}.txt"
        pinned.write_text(pinned_at(f"{lab.depot_url}/{WAY}/{name}", *files))
        entry = requirements_entry("sglang", VERSION, "cuda", pinned, gib=1, more=f'family = "{CUDA}"\n')
        (folder / f"{name}.toml").write_text(f"{model}\n{entry}")
