"""Wheels of a stand-in for SGLang, of PyTorch in name only, and of a CUDA toolkit whose nvcc is the host's g++.

The stand-in takes its options, environment and checkpoint as the real one does; see rackserve/lab/standins/sglang.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from rackserve.lab.elf import STANDINS
from tests.libexec.toolchain import HEADERS, LIBRARIES, NVCC, library
from tests.operations.environment_bench import torch, wheel

VERSION, CUDA = "0.5.23", "13.0"


# By which a release is known to have an nvcc, and of one CUDA release all of it; what they hold is in nvcc's own here.
BESIDE = {"nvidia_cuda_runtime": "13.0.96", "nvidia_cuda_crt": "13.0.88", "nvidia_nvvm": "13.0.88"}
BESIDE |= {"nvidia_cuda_cccl": "13.0.85"}
# What such a release compiles with that it does not bring.
TOOLS = 'packages = { deb = ["g++", "ninja-build"], rpm = ["gcc-c++", "ninja-build"] }\n'


def wheels(folder: Path, cuda: str | None, changed: Mapping[str, str | None] | None = None) -> list[Path]:
    """SGLang's wheel, PyTorch's that says it was built for this release of CUDA, and the toolkit's; None: for the CPU.

    changed: files of the toolkit, by their place in it, with another text or with none.
    """
    files = {
        "sglang/__init__.py": "",
        "sglang/launch_server.py": (STANDINS / "sglang").read_text(),
        # Not by its own name: what is left of the service `chat` is looked for by that word.
        "sglang/serving.py": (STANDINS / "chat_server.py").read_text(),
    }
    folder.mkdir(parents=True)
    paths = []
    made = [wheel("sglang", VERSION, files, "Requires-Dist: torch\n"), torch(cuda)]
    if cuda:
        made += [toolkit(changed or {}), *(wheel(name, version, {}) for name, version in BESIDE.items())]
    for name, content in made:
        path = folder / name
        path.write_bytes(content)
        paths.append(path)
    return paths


def toolkit(changed: Mapping[str, str | None]) -> tuple[str, bytes]:
    """NVIDIA's wheels of a toolkit as one: where they have nvcc, headers and libraries."""
    with tempfile.TemporaryDirectory() as scratch:
        libraries = {f"lib/{name}": library(name, Path(scratch)) for name in LIBRARIES if name.startswith("libcudart")}
    texts = {"bin/nvcc": NVCC, **{f"include/{name}": text for name, text in HEADERS.items()}, **changed}
    # As everywhere in that toolkit: whatever is there in these folders is linked.
    files = {f"nvidia/cu13/{place}": text for place, text in texts.items() if text is not None}
    name, content = wheel("nvidia_cuda_nvcc", "13.0.88", {**files, "nvidia/cu13/nvvm/bin/cicc": ""})
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(packed, "w") as target:
        for entry in source.infolist():
            if "/bin/" in entry.filename:
                entry.external_attr = 0o100755 << 16
            target.writestr(entry, source.read(entry))
        for place, binary in libraries.items():
            if place not in changed:
                target.writestr(zipfile.ZipInfo(f"nvidia/cu13/{place}"), binary)
    return name, packed.getvalue()
