"""Drivers on hosts in trouble: a clear sentence on that host alone before any change, or a run that picks up later.

Four hosts in four runs: two in which each has a trouble of its own, one when all is mended, and one without any vendor.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rackserve.lab.gpu import GpuChoice, plan_of
from rackserve.lab.gpu_host import cards
from rackserve.lab.lab import Lab
from rackserve.lab.repository import Repository, SigningKey
from tests.lab.conftest import LabFactory
from tests.lab.deploying import Run, Site
from tests.lab.gpu_sites import DRIVERS, PACKAGES, POSTINST, PREFLIGHT, REPOSITORIES

pytestmark = pytest.mark.lab

LOADED = "Driver | Driver loaded"
SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
SOMEBODYS = "/etc/apt/sources.list.d/cuda-somebody.list"
SOURCES = "ls /etc/apt/sources.list.d/"
OURS = "ls -d /etc/rackserve /etc/apt/sources.list.d/rackserve* /var/lib/rackserve; true"
HOLDER = "import fcntl,time; f=open('/var/lib/dpkg/lock-frontend','w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(600)"
CLOUD_INIT = (
    '#!/bin/sh\\nif [ "$2" = --wait ]; then touch /run/waited; rm /run/setting-up; exit 0; fi\\n'
    "[ -e /run/setting-up ] && echo status: running || echo status: done\\n"
)
ALL = ("h1", "h2", "h3", "h4")


# -------------------------------------------------------------------------------------------------------- the four runs


@dataclass
class Story:
    """The runs, and what was seen on the hosts between them."""

    lab: Lab
    first: Run
    second: Run
    warned: str
    third: Run
    fourth: Run
    # What the first run left of ours, and what dpkg says of itself after the second one.
    left: dict[str, str]
    audit: dict[str, str]
    # Who held h2's lock, and how it was after the second run.
    holder: str
    held: str


@pytest.fixture(scope="module")
def story(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Story:
    lab = lab_factory("gpufaults")
    lab.up(len(ALL), "bookworm", gpus=GpuChoice("l40s", 2))
    site = Site(lab, tmp_path_factory.mktemp("gpufaults"))
    found = cards(plan_of(lab.state().host("h1")))
    before_the_first(site, tmp_path_factory.mktemp("somebody") / "key")
    first = site.deploy(script=DRIVERS)
    lab.set_pci("h1", found)
    left = {name: lab.ssh(name, OURS if name in {"h1", "h2"} else SOURCES).stdout for name in ALL}
    before_the_second(site)
    holder = lab.ssh("h2", "systemctl show -p MainPID --value lock-holder").stdout.strip()
    second = site.deploy(script=DRIVERS)
    audit = {name: lab.ssh(name, "dpkg --audit").stdout for name in ALL}
    held = lab.ssh("h2", "systemctl is-active lock-holder", check=False).stdout.strip()
    before_the_third(lab)
    warned = site._pyinfra("--dry", "--limit", "h1", str(site.write()), DRIVERS).stderr
    third = site.deploy(script=DRIVERS)
    # No vendor is there any more.
    (lab.depot_dir / "vendor").rename(lab.depot_dir / "away")
    fourth = site.deploy(script=DRIVERS)
    return Story(lab, first, second, warned, third, fourth, left, audit, holder, held)


def before_the_first(site: Site, key_folder: Path) -> None:
    """All is wrong with h1, somebody defined a repository on h2, h3's mirror is dead, h4's signed by another one."""
    lab = site.lab
    lab.ssh("h1", "touch /usr/bin/nvidia-uninstall; mount -t tmpfs -o size=20m tmpfs /boot; apt-get -q update")
    lab.ssh(
        "h1", f"touch /boot/vmlinuz-99.0-gone; mount -t tmpfs tmpfs /sys/firmware; mkdir -p $(dirname {SECURE_BOOT})"
    )
    lab.ssh("h1", f"printf '\\6\\0\\0\\0\\1' >{SECURE_BOOT}")
    lab.set_pci("h1", [replace(cards(plan_of(lab.state().host("h1")))[0], answers=False)])
    lab.ssh("h2", f"echo 'deb [trusted=yes] {lab.depot_url}/vendor/nvidia-cuda/ /' >{SOMEBODYS}")
    package_mirror(site, "h3", "nowhere")
    package_mirror(site, "h4", "forged")
    # The vendor's repository beside its key, and signed by another one.
    vendor, forged = lab.depot_dir / "vendor/nvidia-cuda", lab.depot_dir / "forged"
    shutil.copytree(vendor, forged)
    key = SigningKey(key_folder, "somebody else")
    Repository(forged, key).publish()
    key.close()
    shutil.copy(vendor / "key.pub", forged)


def before_the_second(site: Site) -> None:
    """A package of h1's fails, h2's lock is held, h3's disk is full, and the module is not built on h4."""
    lab = site.lab
    lab.ssh("h1", "rm /usr/bin/nvidia-uninstall; umount /boot /sys/firmware")
    lab.ssh("h1", POSTINST.format("exit 7"))
    site.hosts["h2"] |= {"adopt": True, "apt_lock_timeout": 3}
    lab.ssh("h2", f'systemd-run --unit=lock-holder python3 -c "{HOLDER}"')
    del site.hosts["h3"]["package_mirrors"]
    lab.ssh("h3", "mount -t tmpfs -o size=16k tmpfs /var/cache/apt/archives")
    shutil.copytree(lab.depot_dir / "vendor/nvidia-cuda", lab.depot_dir / "mirror")
    package_mirror(site, "h4", "mirror")
    lab.ssh("h4", "touch /etc/lab-dkms-fails")


def before_the_third(lab: Lab) -> None:
    """All is mended, and h1 is being set up."""
    lab.ssh("h1", f"printf '{CLOUD_INIT}' >/usr/local/bin/cloud-init; chmod 755 /usr/local/bin/cloud-init")
    lab.ssh("h1", "touch /run/setting-up; rm /etc/lab-postinst")
    lab.ssh("h2", "systemctl stop lock-holder")
    lab.ssh("h3", "umount /var/cache/apt/archives")
    lab.ssh("h4", "rm /etc/lab-dkms-fails")


def package_mirror(site: Site, host: str, folder: str) -> None:
    site.hosts[host]["package_mirrors"] = {"nvidia-cuda": f"{site.lab.depot_url}/{folder}"}


def refused(run: Run, name: str, operation: str, *sentences: str) -> None:
    """The host failed in this operation, for these reasons."""
    assert run.failed(name) == [operation], run.text
    for sentence in sentences:
        assert sentence in run.said_of(name), run.text
    assert "Traceback" not in run.text


# ------------------------------------------------------------------------------------ before anything is changed


def test_everything_wrong_is_told_at_once_and_nothing_is_touched(story: Story) -> None:
    refused(
        story.first,
        "h1",
        PREFLIGHT,
        "gpu_count says 2, the PCI bus has 1 l40s (0000:10:00.0): a card is dead or gone",
        "GPU 0000:10:00.0 does not answer on the PCI bus",
        ".run installer has put a driver here",
        "the kernel of the next boot 99.0-gone has no linux-headers-99.0-gone in the archive",
        "/boot has 20 MiB free",
    )
    assert story.left["h1"] == ""


def test_secure_boot_is_found_out_before_and_not_at_the_next_boot(story: Story) -> None:
    refused(story.first, "h1", PREFLIGHT, "Secure Boot is on and nvidia is built on the host", "mokutil --import")


def test_somebody_elses_definition_is_refused_and_moved_aside_where_that_is_wanted(story: Story) -> None:
    url = f"{story.lab.depot_url}/vendor/nvidia-cuda/"
    refused(story.first, "h2", PREFLIGHT, f"{SOMEBODYS} defines the repository {url} as well")
    assert story.left["h2"] == ""
    assert story.third.code == 0, story.third.text
    assert story.lab.ssh("h2", SOURCES).stdout.split() == [
        "cuda-somebody.list.disabled-by-rackserve",
        "lab-archive.sources",
        "rackserve-nvidia-cuda.sources",
    ]


# ----------------------------------------------------------------------------------------- repositories and packages


def test_a_dead_mirror_stops_a_virgin_host_and_not_a_finished_one(story: Story) -> None:
    refused(story.first, "h3", REPOSITORIES, "its key was not fetched from")
    assert story.left["h3"].split() == ["lab-archive.sources"]
    assert story.fourth.code == 0, story.fourth.text
    assert {name: story.fourth.changed(name) for name in ALL} == {name: [] for name in ALL}


def test_a_repository_that_somebody_else_signed_is_not_added(story: Story) -> None:
    refused(story.first, "h4", REPOSITORIES, "bad signature: expected it by")
    assert story.left["h4"].split() == ["lab-archive.sources"]


def test_a_held_lock_is_waited_for_and_its_holder_named(story: Story) -> None:
    refused(story.second, "h2", PACKAGES, f"by pid {story.holder}")
    assert story.held == "active"


def test_a_package_that_fails_is_named(story: Story) -> None:
    refused(story.second, "h1", PACKAGES, "dpkg: error processing package", "exit status 7")
    assert story.audit["h1"] != ""


def test_a_full_disk_installs_nothing_and_what_is_missing_is_told(story: Story) -> None:
    refused(story.second, "h3", PACKAGES, "Error writing to file - write (28: No space left on device)")
    assert story.audit["h3"] == ""


def test_a_module_that_cannot_be_built_is_no_success(story: Story) -> None:
    refused(story.second, "h4", LOADED, f"nvidia was not built for {os.uname().release}", "Bad return status")


def test_a_mirror_stands_in_for_a_vendor(story: Story) -> None:
    mirror = f"{story.lab.depot_url}/mirror"
    assert PACKAGES in story.second.changed("h4")
    sources = story.lab.ssh("h4", "cat /etc/apt/sources.list.d/rackserve-nvidia-cuda.sources").stdout
    assert f"URIs: {mirror}\n" in sources
    known = story.lab.ssh("h4", "apt-cache policy nvidia-driver-cuda").stdout
    assert mirror in known
    assert "vendor" not in known


def test_a_machine_that_is_still_being_set_up_is_waited_for(story: Story) -> None:
    assert "cloud-init is still at work" in story.warned
    assert story.third.code == 0, story.third.text
    assert story.lab.ssh("h1", "ls /run/waited").stdout.strip() == "/run/waited"


@pytest.mark.parametrize("host", ALL)
def test_a_later_run_mends_what_the_trouble_left(story: Story, host: str) -> None:
    assert story.third.code == 0, story.third.text
    assert story.third.changed(host)[-1] == "Driver | GPUs ready"
    assert story.lab.ssh(host, "dpkg --audit").stdout == ""
