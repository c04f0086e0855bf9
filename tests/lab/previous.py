"""The release before this one: its code in a folder of its own, and a Python that has what it asks for."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.lab.deploying import ROOT, Site

# Moved forward to the last commit of each release.
NAMED_IN = Path(__file__).with_name("previous.txt")
REQUIREMENTS = "requirements/dev.txt"


def commit() -> str:
    """The last commit of the release before this one."""
    return NAMED_IN.read_text(encoding="utf-8").strip()


def check_out(folder: Path) -> Path:
    """Unpack that commit below `folder`. A clone without it is a failure: the promise would go unasked."""
    git = ["git", "-c", f"safe.directory={ROOT}", "-C", ROOT, "archive", "--format=tar", commit()]
    packed = subprocess.run(git, capture_output=True, check=False)
    if packed.returncode != 0:
        said = packed.stderr.decode().strip()
        pytest.fail(f"{NAMED_IN.name} names {commit()}, which is not in this clone: fetch its whole history ({said})")
    tree = folder / "previous"
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(tree, filter="data")
    return tree


def python_of(tree: Path) -> str:
    """This one, unless that tree asks for other packages: then one of its own."""
    if (tree / REQUIREMENTS).read_bytes() == (ROOT / REQUIREMENTS).read_bytes():
        return sys.executable
    subprocess.run(["tools/venv.sh", sys.executable, ".venv"], cwd=tree, check=True, timeout=600)
    return str(tree / ".venv/bin/python")


def run_by(site: Site, tree: Path) -> None:
    """From now on the site is deployed by the code of this tree, which is made sure of."""
    site.tree, site.python = tree, sys.executable if tree == ROOT else python_of(tree)
    asked = [site.python, "-c", "import rackserve, roles; print(rackserve.__file__, roles.__file__)"]
    told = subprocess.run(asked, cwd=tree, env=site.environment, capture_output=True, text=True, check=True)
    assert told.stdout.split() == [str(tree / "rackserve/__init__.py"), str(tree / "roles/__init__.py")]
