"""Every command of the runbook, in its order, on two real hosts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rackserve.lab import model
from rackserve.lab.lab import Lab
from tests.lab.conftest import LabFactory
from tests.lab.deploying import ROOT

pytestmark = pytest.mark.lab

COMMANDS = re.findall(r"^```sh\n(.+?)\n```$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def hosts(lab_factory: LabFactory) -> Lab:
    lab = lab_factory("runbook")
    lab.up(2, "forky")
    model.provide(lab.names.folder, lab.depot_dir, lab.depot_url, tiny=True, progress=lambda _: None)
    return lab


def run(lab: Lab, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as it stands in the runbook, with the programs of this environment first on the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "RACKSERVE_LAB": lab.names.lab},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_runbook_has_all_its_chapters() -> None:
    chapters = re.findall(r"^## (.+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    for chapter in ("Install", "Change a model, or its limits", "A host is down", "Remove"):
        assert chapter in chapters
    assert len(COMMANDS) > 15


@pytest.mark.parametrize(
    ("number", "command"), list(enumerate(COMMANDS)), ids=[f"{n}: {c}" for n, c in enumerate(COMMANDS)]
)
def test_command_does_what_the_runbook_says(hosts: Lab, number: int, command: str) -> None:
    done = run(hosts, command)
    assert done.returncode == 0, f"{number}: {command}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr


def test_after_the_runbook_h1_is_clean_and_h2_serves(hosts: Lab) -> None:
    assert hosts.ssh("h1", "ls /opt/rackserve /etc/rackserve", check=False).returncode != 0
    assert run(hosts, "rackserve verify inventories/lab.py --limit h2").returncode == 0
