"""Every command of the drivers' runbook, in its order, on a real host with simulated cards."""

from __future__ import annotations

import re

import pytest

from rackserve.lab.gpu import GpuChoice
from rackserve.lab.lab import Lab
from tests.lab.conftest import LabFactory
from tests.lab.deploying import ROOT
from tests.lab.test_runbook import run

pytestmark = pytest.mark.lab
TEXT = (ROOT / "docs" / "runbook-drivers.md").read_text()
COMMANDS = re.findall(r"^```sh\n(.+?)\n```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def hosts(lab_factory: LabFactory) -> Lab:
    lab = lab_factory("gpurunbook")
    lab.up(1, "bookworm", gpus=GpuChoice("l40s", 2))
    return lab


def test_the_runbook_has_commands() -> None:
    assert len(COMMANDS) > 7


@pytest.mark.parametrize("command", COMMANDS)
def test_command_does_what_the_runbook_says(hosts: Lab, command: str) -> None:
    done = run(hosts, command)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr


def test_after_the_runbook_the_host_is_clean(hosts: Lab) -> None:
    assert hosts.ssh("h1", "ls -d /etc/rackserve /var/lib/rackserve", check=False).returncode != 0
