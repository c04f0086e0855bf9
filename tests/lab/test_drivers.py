"""Drivers on lab hosts with simulated GPUs: every vendor's path, from a virgin host to a second run without changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rackserve.lab.gpu import GpuChoice, plan_of
from rackserve.lab.lab import Lab
from tests.lab.conftest import LabFactory
from tests.lab.deploying import Site

pytestmark = pytest.mark.lab

DRIVERS, UNINSTALL = "deploys/drivers.py", "deploys/uninstall.py"
PACKAGES = "dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\\n' | grep -v '^un'"
FILES = (
    "find / -xdev ! -type d ! -path '/var/log/*' ! -path '/var/lib/apt/*' ! -path '/var/cache/*' "
    "! -path '/var/lib/dpkg/*' ! -path '/tmp/*' ! -path '/var/tmp/*' ! -path '/var/lib/systemd/*' "
    "! -path '/root/*' ! -name '*.pyc'"
)
INSTALLS = [
    "Driver | Package repositories as planned",
    "Driver | Pins and guards against upgrades as planned",
    "Driver | Driver packages installed",
]
LOADS = ["Driver | Modules and checks as planned", "Driver | Driver loaded", "Driver | GPUs ready"]
# Each way in which a driver gets onto a host: built from a vendor's repository, with switches, ready-made and signed by
# the distribution, proprietary, AMD's (which takes a reboot), and Intel's (which the kernel brings).
CHOICES = {
    "debian-12": ("bookworm", GpuChoice("l40s", 2)),
    "debian-13-switches": ("trixie", GpuChoice("h100-sxm-80gb", 8)),
    "debian-13-nvlink5": ("trixie", GpuChoice("b200", 8)),
    "ubuntu-24.04-signed": ("bookworm", GpuChoice("l40s", 1, "ubuntu-24.04")),
    "ubuntu-22.04-proprietary": ("bookworm", GpuChoice("v100-32gb-sxm", 4, "ubuntu-22.04")),
    "ubuntu-24.04-amd": ("bookworm", GpuChoice("mi300x", 8, "ubuntu-24.04")),
    "ubuntu-26.04-intel": ("trixie", GpuChoice("arc-b580", 1, "ubuntu-26.04")),
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_virgin_host_gets_what_the_dry_run_said_and_nothing_the_second_time(
    lab_factory: LabFactory, tmp_path: Path, name: str
) -> None:
    suite, choice = CHOICES[name]
    lab = lab_factory(f"gpu{list(CHOICES).index(name)}")
    lab.up(1, suite, gpus=choice)
    plan = plan_of(lab.hosts()[0], engines=())
    site = Site(lab, tmp_path)
    before, files, packages = lab.boot_id("h1"), everything(lab), lab.ssh("h1", PACKAGES).stdout
    predicted = site.predicted("h1", DRIVERS)
    run = site.deploy(script=DRIVERS)
    assert run.code == 0, run.text
    wanted = INSTALLS if plan.repositories else INSTALLS[1:]
    loads = LOADS if plan.built or plan.signed_module else [LOADS[0], LOADS[2]]
    assert run.changed("h1") == predicted == [*wanted, *loads]
    assert (lab.boot_id("h1") != before) == (plan.vendor == "amd")
    loaded = lab.ssh("h1", "ls /sys/module").stdout.split()
    assert set(plan.modules) <= set(loaded)
    assert "nouveau" not in loaded
    marker = json.loads(lab.ssh("h1", "cat /var/lib/rackserve/driver.json").stdout)
    assert len(marker["ready"]["gpus"]) == choice.count
    assert site.deploy(script=DRIVERS).changed("h1") == []
    verified = site.rackserve("verify", str(site.file))
    assert verified.returncode == 0, verified.stdout
    removal = site.deploy(script=UNINSTALL)
    assert removal.code == 0, removal.text
    assert lab.ssh("h1", PACKAGES).stdout == packages
    assert everything(lab) == files
    assert site.deploy(script=UNINSTALL).changed("h1") == []
    lab.down()


def everything(lab: Lab) -> set[str]:
    """All files of a host's disk, except what package managers and journals write wherever they work."""
    return set(lab.ssh("h1", FILES).stdout.splitlines())
