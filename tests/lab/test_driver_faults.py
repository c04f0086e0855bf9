"""Drivers on hosts in trouble: a clear sentence before any change, or a run that picks up where one broke off."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rackserve.lab.gpu import GpuChoice, plan_of
from rackserve.lab.gpu_host import cards
from rackserve.lab.lab import Lab
from rackserve.lab.repository import Repository, SigningKey
from tests.lab.conftest import LabFactory
from tests.lab.gpu_sites import DRIVERS, PACKAGES, PREFLIGHT, REPOSITORIES, GpuSite

pytestmark = pytest.mark.lab

POOL = 13
POSTINST = "printf '#!/bin/sh\\n%s\\n' '{}' >/etc/lab-postinst && chmod 755 /etc/lab-postinst"


@pytest.fixture(scope="module")
def lab(lab_factory: LabFactory) -> Lab:
    made = lab_factory("gpufaults")
    made.up(POOL, "bookworm", gpus=GpuChoice("l40s", 2))
    return made


@pytest.fixture(scope="module")
def names(lab: Lab) -> Iterator[str]:
    return iter([host.name for host in lab.hosts()])


@pytest.fixture
def site(lab: Lab, names: Iterator[str], tmp_path: Path) -> GpuSite:
    return GpuSite(lab, tmp_path, next(names))


@pytest.fixture(scope="module")
def deployed(lab: Lab, names: Iterator[str], tmp_path_factory: pytest.TempPathFactory) -> GpuSite:
    """A host that has its driver."""
    made = GpuSite(lab, tmp_path_factory.mktemp("deployed"), next(names))
    run = made.run()
    assert run.code == 0, run.text
    return made


@pytest.fixture(scope="module")
def refusing(lab: Lab, names: Iterator[str], tmp_path_factory: pytest.TempPathFactory) -> GpuSite:
    """A virgin host that stays one."""
    return GpuSite(lab, tmp_path_factory.mktemp("refusing"), next(names))


def vendor(lab: Lab, name: str = "nvidia-cuda") -> Repository:
    return Repository(lab.depot_dir / "vendor" / name, SigningKey(lab.names.folder / "vendor-key"))


# ------------------------------------------------------------------------------------ before anything is changed


def test_everything_wrong_is_told_at_once_and_nothing_is_touched(refusing: GpuSite) -> None:
    lab, name = refusing.lab, refusing.name
    found = cards(plan_of(lab.state().host(name)))
    lab.set_pci(name, [replace(found[0], answers=False)])
    refusing.on(
        "touch /usr/bin/nvidia-uninstall; mount -t tmpfs -o size=20m tmpfs /boot; touch /boot/vmlinuz-99.0-gone"
    )
    refusing.on("apt-get -q update")
    try:
        refusing.refused(
            PREFLIGHT,
            "gpu_count says 2, the PCI bus has 1 l40s (0000:10:00.0): a card is dead or gone",
            "GPU 0000:10:00.0 does not answer on the PCI bus",
            ".run installer has put a driver here",
            "the kernel of the next boot 99.0-gone has no linux-headers-99.0-gone in the archive",
            "/boot has 20 MiB free",
        )
        refusing.untouched()
    finally:
        lab.set_pci(name, found)
        refusing.on("rm /usr/bin/nvidia-uninstall; umount /boot")


def test_secure_boot_is_found_out_before_and_not_at_the_next_boot(refusing: GpuSite) -> None:
    variable = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    refusing.on(
        f"mount -t tmpfs tmpfs /sys/firmware && mkdir -p $(dirname {variable}) && printf '\\6\\0\\0\\0\\1' >{variable}"
    )
    try:
        refusing.refused(PREFLIGHT, "Secure Boot is on and nvidia is built on the host", "mokutil --import")
        refusing.untouched()
    finally:
        refusing.on("umount /sys/firmware")


def test_somebody_elses_definition_is_refused_and_moved_aside_where_that_is_wanted(site: GpuSite) -> None:
    url = f"{site.lab.depot_url}/vendor/nvidia-cuda/"
    site.on(f"echo 'deb [trusted=yes] {url} /' >/etc/apt/sources.list.d/cuda-somebody.list")
    site.refused(PREFLIGHT, f"/etc/apt/sources.list.d/cuda-somebody.list defines the repository {url} as well")
    site.untouched()
    site.data["adopt"] = True
    site.converges()
    assert site.on("ls /etc/apt/sources.list.d/").split() == [
        "cuda-somebody.list.disabled-by-rackserve",
        "lab-archive.sources",
        "rackserve-nvidia-cuda.sources",
    ]


# ----------------------------------------------------------------------------------------- repositories and packages


def test_a_dead_mirror_stops_a_virgin_host_and_not_a_finished_one(lab: Lab, site: GpuSite, deployed: GpuSite) -> None:
    folder = lab.depot_dir / "vendor"
    folder.rename(lab.depot_dir / "away")
    try:
        run = site.refused(REPOSITORIES, "its key was not fetched from")
        assert run.code == 1
        assert site.on("ls /etc/apt/sources.list.d/").split() == ["lab-archive.sources"]
        assert deployed.run().changed(deployed.name) == []
    finally:
        (lab.depot_dir / "away").rename(folder)
    site.converges()


def test_a_repository_that_somebody_else_signed_is_not_added(lab: Lab, site: GpuSite, tmp_path: Path) -> None:
    repository, key = vendor(lab), (lab.depot_dir / "vendor/nvidia-cuda/key.pub").read_text()
    repository.key = SigningKey(tmp_path / "other", "somebody else")
    repository.publish()
    (lab.depot_dir / "vendor/nvidia-cuda/key.pub").write_text(key)
    try:
        site.refused(REPOSITORIES, "bad signature: expected it by")
        assert site.on("ls /etc/apt/sources.list.d/").split() == ["lab-archive.sources"]
    finally:
        repository.key.close()
        vendor(lab).publish()


def test_a_held_lock_is_waited_for_and_its_holder_named(site: GpuSite) -> None:
    site.data["apt_lock_timeout"] = 3
    holder = (
        "import fcntl,time; f=open('/var/lib/dpkg/lock-frontend','w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(600)"
    )
    site.on(f'systemd-run --unit=lock-holder python3 -c "{holder}"')
    pid = site.on("systemctl show -p MainPID --value lock-holder").strip()
    try:
        site.refused(PACKAGES, f"by pid {pid}")
        assert site.on("systemctl is-active lock-holder").strip() == "active"
    finally:
        site.on("systemctl stop lock-holder")
    site.converges()


def test_a_package_that_fails_is_named_and_a_later_run_mends_it(site: GpuSite) -> None:
    site.on(POSTINST.format("exit 7"))
    site.refused(PACKAGES, "dpkg: error processing package", "exit status 7")
    assert site.on("dpkg --audit") != ""
    site.on("rm /etc/lab-postinst")
    site.converges()


@pytest.mark.parametrize("power_cut", [False, True], ids=["connection lost", "power cut"])
def test_a_run_that_broke_off_in_a_transaction_is_picked_up(site: GpuSite, power_cut: bool) -> None:
    site.on(POSTINST.format("touch /run/half-way; sleep 8"))

    def break_off(process: subprocess.Popen[str]) -> None:
        for _ in range(240):
            if site.on("ls /run/half-way 2>/dev/null; true"):
                break
            time.sleep(0.25)
        if power_cut:
            site.lab.kill(site.name)
        process.send_signal(signal.SIGKILL)

    name, _ = site.deploy_until(3, break_off, script=DRIVERS)
    assert name == PACKAGES
    if power_cut:
        site.lab.boot(site.name)
        site.lab.wait(site.name)
        assert site.on("dpkg --audit") != ""
        site.on("rm /etc/lab-postinst")
    else:
        assert site.on("systemctl is-active rackserve-packages").strip() in {"active", "activating"}
    site.converges()


def test_a_machine_that_is_still_being_set_up_is_waited_for(site: GpuSite) -> None:
    script = (
        '#!/bin/sh\\nif [ "$2" = --wait ]; then touch /run/waited; rm /run/setting-up; exit 0; fi\\n'
        "[ -e /run/setting-up ] && echo status: running || echo status: done\\n"
    )
    site.on(f"printf '{script}' >/usr/local/bin/cloud-init; chmod 755 /usr/local/bin/cloud-init; touch /run/setting-up")
    assert "cloud-init is still at work" in site._pyinfra("--dry", str(site.write()), DRIVERS).stderr
    site.converges()
    assert site.on("ls /run/waited").strip() == "/run/waited"


def test_a_module_that_cannot_be_built_is_no_success(site: GpuSite) -> None:
    site.on("touch /etc/lab-dkms-fails")
    site.refused("Driver | Driver loaded", f"nvidia was not built for {os.uname().release}", "Bad return status")
    site.on("rm /etc/lab-dkms-fails")
    site.converges()


def test_a_full_disk_installs_nothing_and_what_is_missing_is_told(site: GpuSite) -> None:
    site.on("mount -t tmpfs -o size=16k tmpfs /var/cache/apt/archives")
    site.refused(PACKAGES, "Error writing to file - write (28: No space left on device)")
    assert site.on("dpkg --audit") == ""
    site.on("umount /var/cache/apt/archives")
    site.converges()


def test_a_mirror_stands_in_for_a_vendor_that_is_out_of_reach(lab: Lab, site: GpuSite) -> None:
    mirror = lab.depot_dir / "mirror"
    (lab.depot_dir / "vendor/nvidia-cuda").rename(mirror)
    site.data["package_mirrors"] = {"nvidia-cuda": f"{lab.depot_url}/mirror"}
    try:
        site.converges()
        assert f"URIs: {lab.depot_url}/mirror\n" in site.on("cat /etc/apt/sources.list.d/rackserve-nvidia-cuda.sources")
    finally:
        mirror.rename(lab.depot_dir / "vendor/nvidia-cuda")
