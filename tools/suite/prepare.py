"""python -m tools.suite.prepare contract|model-configs: what some tests need in build/, as links to what is kept.

Made once for each state of its inputs, and shared by all checkouts of the machine. Needs no package.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tools.suite.cache import cached

ROOT = Path(__file__).resolve().parents[2]
TOOLS, PINS = ROOT / "tools", ROOT / "requirements"


def contract() -> None:
    """Real vLLM and SGLang, as tools/contract_environments.sh makes them."""
    script = TOOLS / "contract_environments.sh"
    python = os.environ.get("PYTHON", "python3.11")
    if shutil.which(python) is None:
        sys.exit(f"no contract tests: their vLLM needs CPython 3.11, named by PYTHON, and there is no {python}")
    version = subprocess.run([python, "-VV"], check=True, capture_output=True, text=True).stdout
    inputs = (script, PINS / "contract.txt", PINS / "contract-wheels.txt", version, platform.machine())
    _link(cached("contract", inputs, _by(script)), "contract")


def model_configs() -> None:
    """The model configs and the other estimator that docs/accuracy.md is made from."""
    script = TOOLS / "model_configs.sh"
    entry = cached("model-configs", (script, PINS / "accuracy.txt"), _by(script))
    for name in ("model-configs", "hf-mem"):
        _link(entry / name, name)


def _by(script: Path) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        done = subprocess.run([script, folder], check=False)
        if done.returncode:
            sys.exit(f"{script.name} ended with exit code {done.returncode}; what it said stands above")

    return make


def _link(entry: Path, name: str) -> None:
    link = ROOT / "build" / name
    link.parent.mkdir(exist_ok=True)
    if link.is_dir() and not link.is_symlink():
        # Made here, before there was a cache.
        shutil.rmtree(link)
    beside = link.with_name(f".{name}.{os.getpid()}")
    beside.symlink_to(entry)
    beside.rename(link)


if __name__ == "__main__":
    known = {"contract": contract, "model-configs": model_configs}
    if len(sys.argv) != 2 or sys.argv[1] not in known:  # noqa: PLR2004  the program and one word
        sys.exit(__doc__)
    known[sys.argv[1]]()
