"""Archives of stand-ins for Ollama and LM Studio's server, laid out as the vendors' are; what they act out is in each.

What fetches, unpacks, checks, sets up, starts, asks and stops them is the real thing.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from rackserve.lab.elf import STANDINS, program

# The CPU's first: it is the one that is chosen at first.
ENGINES = (
    "llama.cpp-linux-x86_64-avx2@2.41.0",
    "llama.cpp-linux-x86_64-nvidia-cuda12-avx2@2.40.1",
    "llama.cpp-linux-x86_64-nvidia-cuda12-avx2@2.41.0",
    "llama.cpp-linux-x86_64-vulkan-avx2@2.41.0",
)


def ollama_archive(path: Path, version: str, libraries: tuple[str, ...] = ("cuda_v12", "cuda_v13", "vulkan")) -> None:
    """Write the archive of a version to `path`, packed by zstd. libraries: the backends in it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _put(root / "bin/ollama", program("../lib/standin/ollama"))
        _put(root / "lib/standin/ollama", _script("ollama", VERSION=version))
        _put(root / "lib/standin/chat_server.py", _script("chat_server.py"))
        for name in libraries:
            _put(root / f"lib/ollama/{name}/libggml-{name.partition('_')[0]}.so", b"stand-in\n")
        _pack(root, path, "--zstd")


def llmster_archive(path: Path, version: str, engines: tuple[str, ...] = ENGINES) -> None:
    """Write the archive of a version to `path`, packed by gzip. engines: names and versions of those in it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _put(root / "llmster", program(".bundle/llmster"))
        _put(root / ".bundle/llmster", _script("llmster", VERSION=version, ENGINES=" ".join(engines)))
        _put(root / ".bundle/chat_server.py", _script("chat_server.py"))
        _put(root / ".bundle/lms", _script("lms"))
        _pack(root, path, "--gzip")


def _script(name: str, **values: str) -> bytes:
    text = (STANDINS / name).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text.encode()


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755)


def _pack(folder: Path, path: Path, compression: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = sorted(entry.name for entry in folder.iterdir())
    subprocess.run(["tar", compression, "-cf", path, "-C", folder, *entries], check=True)
