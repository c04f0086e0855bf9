"""Drivers on lab hosts with simulated GPUs: from a virgin host to a second run without changes, and off it again.

Hosts of several labs are in one inventory, so that all of a group are waited for at once.
"""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rackserve.lab.gpu import GpuChoice, plan_of
from rackserve.lab.lab import Lab
from tests.lab.conftest import LabFactory
from tests.lab.deploying import Run, Site, inventory_of
from tests.lab.gpu_sites import DRIVERS, UNINSTALL

pytestmark = pytest.mark.lab

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
# Each way in which a driver gets onto a host: built from a vendor's repository, ready-made and signed by the
# distribution, AMD's (which takes a reboot); with switches, proprietary, and Intel's (which the kernel brings).
CHOICES = {
    "debian_12": ("bookworm", GpuChoice("l40s", 2)),
    "ubuntu_24_04_signed": ("bookworm", GpuChoice("l40s", 1, "ubuntu-24.04")),
    "ubuntu_24_04_amd": ("bookworm", GpuChoice("mi300x", 8, "ubuntu-24.04")),
    "debian_13_switches": ("trixie", GpuChoice("h100-sxm-80gb", 8)),
    "debian_13_nvlink5": ("trixie", GpuChoice("b200", 8)),
    "ubuntu_22_04_proprietary": ("bookworm", GpuChoice("v100-32gb-sxm", 4, "ubuntu-22.04")),
    "ubuntu_26_04_intel": ("trixie", GpuChoice("arc-b580", 1, "ubuntu-26.04")),
}
SHORT = ("debian_12", "ubuntu_24_04_signed", "ubuntu_24_04_amd")
NAMES = [pytest.param(name, marks=[] if name in SHORT else [pytest.mark.full]) for name in CHOICES]


class Group(Site):
    """One inventory of hosts of which each is the only one of its lab."""

    def __init__(self, labs: dict[str, Lab], folder: Path) -> None:
        super().__init__(next(iter(labs.values())), folder)
        self.labs = labs
        self.hosts = {name: inventory_of(lab)["h1"] for name, lab in labs.items()}
        self._pristine = copy.deepcopy(self.hosts)

    def predictions(self) -> dict[str, list[str]]:
        """What a dry run says would change something, by host."""
        done = self._pyinfra("--dry", "--json", str(self.write()), DRIVERS)
        assert done.returncode == 0, done.stderr
        plan = json.loads(done.stdout)["plan"]
        return {name: [entry["name"] for entry in plan if name in entry["hosts_with_change"]] for name in self.labs}

    def seen(self) -> dict[str, Seen]:
        return {name: seen(lab) for name, lab in self.labs.items()}


@dataclass(frozen=True)
class Seen:
    """What of a host may change: all files of its disk, except what package managers and journals write anyway."""

    boot: str
    packages: str
    files: frozenset[str]


def seen(lab: Lab) -> Seen:
    files = lab.ssh("h1", FILES).stdout.splitlines()
    return Seen(lab.boot_id("h1"), lab.ssh("h1", PACKAGES).stdout, frozenset(files))


@dataclass(frozen=True)
class Story:
    """From virgin hosts to virgin hosts: what was said, and what was seen on them before, with a driver, and after."""

    labs: dict[str, Lab]
    before: dict[str, Seen]
    predicted: dict[str, list[str]]
    run: Run
    loaded: dict[str, list[str]]
    marker: dict[str, Any]
    deployed: dict[str, Seen]
    again: Run
    verified: subprocess.CompletedProcess[str]
    removal: Run
    after: dict[str, Seen]
    nothing_left: Run


def story_of(group: Group) -> Story:
    before, predicted = group.seen(), group.predictions()
    run = group.deploy(script=DRIVERS)
    assert run.code == 0, run.text
    loaded = {name: lab.ssh("h1", "ls /sys/module").stdout.split() for name, lab in group.labs.items()}
    marker = {
        name: json.loads(lab.ssh("h1", "cat /var/lib/rackserve/driver.json").stdout) for name, lab in group.labs.items()
    }
    deployed, again = group.seen(), group.deploy(script=DRIVERS)
    verified = group.rackserve("verify", str(group.file))
    removal = group.deploy(script=UNINSTALL)
    after, nothing_left = group.seen(), group.deploy(script=UNINSTALL)
    return Story(
        group.labs, before, predicted, run, loaded, marker, deployed, again, verified, removal, after, nothing_left
    )


@pytest.fixture(scope="module")
def stories(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Story]:
    """The story of the group that a host is in, which is the same for all of it."""
    told: dict[bool, Story] = {}

    def story(name: str) -> Story:
        short = name in SHORT
        if short not in told:
            labs = {}
            for number, (member, (suite, choice)) in enumerate(CHOICES.items()):
                if (member in SHORT) == short:
                    labs[member] = lab_factory(f"gpu{number}")
                    labs[member].up(1, suite, gpus=choice)
            told[short] = story_of(Group(labs, tmp_path_factory.mktemp("group")))
        return told[short]

    return story


@pytest.mark.parametrize("name", NAMES)
def test_a_virgin_host_gets_what_the_dry_run_said_and_nothing_the_second_time(
    stories: Callable[[str], Story], name: str
) -> None:
    story, (_, choice) = stories(name), CHOICES[name]
    plan = plan_of(story.labs[name].hosts()[0], engines=())
    wanted = INSTALLS if plan.repositories else INSTALLS[1:]
    loads = LOADS if plan.built or plan.signed_module else [LOADS[0], LOADS[2]]
    assert story.run.changed(name) == story.predicted[name] == [*wanted, *loads]
    assert (story.deployed[name].boot != story.before[name].boot) == (plan.vendor == "amd")
    assert set(plan.modules) <= set(story.loaded[name])
    assert "nouveau" not in story.loaded[name]
    assert len(story.marker[name]["ready"]["gpus"]) == choice.count
    assert story.again.code == 0, story.again.text
    assert story.again.changed(name) == []
    assert story.verified.returncode == 0, story.verified.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_driver_that_is_taken_off_leaves_the_host_as_it_was(stories: Callable[[str], Story], name: str) -> None:
    story = stories(name)
    assert story.removal.code == 0, story.removal.text
    assert story.after[name].packages == story.before[name].packages
    assert story.after[name].files == story.before[name].files
    assert story.nothing_left.changed(name) == []
