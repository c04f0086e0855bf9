"""The tiny checkpoint in a lab's depot, and the operator's own catalogue and pins that install a Python runtime."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from urllib.parse import quote

from rackserve.lab.hub import publish
from rackserve.lab.lab import Lab
from rackserve.lab.tiny_checkpoint import write_tiny_checkpoint

MODEL = "tiny-checkpoint"
REPO = "rackserve/tiny-checkpoint"
_MODEL = """\
[models.{name}]
repo = "{repo}"
license = "none: random weights"
source = "written by rackserve on this machine"
date = "2026-11-27"
checkpoints = [{{ quantization = "none", repo = "{repo}", revision = "{revision}" }}]

[models.{name}.config]
{config}
"""
_REQUIREMENTS = """\
[requirements."{runtime}-{version}-{backend}"]
runtime = "{runtime}"
version = "{version}"
backend = "{backend}"
file = "{file}"
architectures = ["x86_64"]
glibc = "2.34"
python_min = "3.11"
python_before = "3.12"
installed_gib = {gib}
source = "made by a test"
date = "2026-11-27"
"""


def offer_checkpoint(lab: Lab, folder: Path) -> str:
    """Put a checkpoint where a hub would have it; the catalogue's entry of its model."""
    checkpoint = folder / "checkpoint"
    write_tiny_checkpoint(checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    listed = "\n".join(f"{key} = {json.dumps(value)}" for key, value in config.items() if value is not None)
    return _MODEL.format(name=MODEL, repo=REPO, revision=publish(lab.depot_dir, REPO, checkpoint), config=listed)


def requirements_entry(runtime: str, version: str, backend: str, file: Path, *, gib: int, more: str = "") -> str:
    """The catalogue's entry of a runtime that is pinned in `file`, beside the catalogue. more: further lines of it."""
    entry = _REQUIREMENTS.format(runtime=runtime, version=version, backend=backend, file=file.name, gib=gib)
    return f"{entry}{more}"


def pinned_at(base_url: str, *files: Path) -> str:
    """What pins these wheels to where they are and to their bytes."""
    pins = []
    for file in files:
        name, digest = file.name.partition("-")[0], hashlib.sha256(file.read_bytes()).hexdigest()
        # The + of a local version would be read as a space.
        pins.append(f"{name} @ {base_url}/{quote(file.name)} \\\n    --hash=sha256:{digest}\n")
    return "".join(pins)
