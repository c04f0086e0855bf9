"""Drivers taken off hosts again: whatever breaks the run off, and whoever was there before."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rackserve.lab.gpu import GpuChoice
from rackserve.lab.lab import Lab
from tests.lab.conftest import LabFactory
from tests.lab.gpu_sites import UNINSTALL, GpuSite

pytestmark = pytest.mark.lab
GONE = "Uninstall | Packages of rackserve's gone"


@pytest.fixture(scope="module")
def lab(lab_factory: LabFactory) -> Lab:
    made = lab_factory("gpuremoval")
    made.up(3, "bookworm", gpus=GpuChoice("l40s", 2))
    return made


@pytest.fixture(scope="module")
def names(lab: Lab) -> Iterator[str]:
    return iter([host.name for host in lab.hosts()])


@pytest.fixture
def site(lab: Lab, names: Iterator[str], tmp_path: Path) -> GpuSite:
    return GpuSite(lab, tmp_path, next(names))


def test_a_removal_that_lost_its_power_is_finished_by_the_next_run(site: GpuSite) -> None:
    before = site.on("dpkg-query -W -f '${Package}\\n'")
    assert site.run().code == 0
    # The first of ours whose script takes its time is where the power goes.
    site.on("sed -i '2i touch /run/half-way; sleep 5' /var/lib/dpkg/info/nvidia-kernel-open-dkms.prerm")

    def break_off(process: subprocess.Popen[str]) -> None:
        for _ in range(240):
            if site.on("ls /run/half-way 2>/dev/null; true"):
                break
            time.sleep(0.25)
        site.lab.kill(site.name)
        process.send_signal(signal.SIGKILL)

    name, _ = site.deploy_until(2, break_off, script=UNINSTALL)
    assert name == GONE
    site.lab.boot(site.name)
    site.lab.wait(site.name)
    assert site.deploy(script=UNINSTALL).code == 0
    assert site.on("dpkg-query -W -f '${db:Status-Abbrev}${Package}\\n' | sed -n 's/^ii //p'") == before
    assert site.on("dpkg --audit") == ""
    assert site.deploy(script=UNINSTALL).changed(site.name) == []


def test_what_was_there_before_stays_and_what_others_need_is_named(site: GpuSite) -> None:
    site.on("apt-get -q update; apt-get -q -y install --no-install-recommends dkms")
    assert site.run().code == 0
    folder = "/tmp/needing/DEBIAN"
    control = "Package: monitor\\nVersion: 1\\nArchitecture: all\\nMaintainer: n <n@n.example>\\nDescription: x\\n"
    depends = "Depends: nvidia-driver-cuda\\n"
    site.on(f"mkdir -p {folder}; printf '{control}{depends}' >{folder}/control; dpkg-deb -b /tmp/needing /tmp/m.deb")
    site.on("dpkg -i /tmp/m.deb")
    run = site.deploy(script=UNINSTALL)
    assert run.code == 0, run.text
    assert "nvidia-driver-cuda, needed by monitor" in run.said_of(site.name)
    left = site.on("dpkg-query -W -f '${db:Status-Abbrev}${Package}\\n'").splitlines()
    assert {"ii dkms", "ii monitor", "ii nvidia-driver-cuda"} <= set(left)
    assert not any("nvidia-kernel-open-dkms" in line for line in left if line.startswith("ii"))
    assert site.on("ls -d /etc/rackserve /var/lib/rackserve /etc/apt/sources.list.d/rackserve*; true") == ""


def test_a_driver_in_use_is_taken_off_and_its_module_told(site: GpuSite) -> None:
    assert site.run().code == 0
    site.on("systemd-run --unit=trainer --collect sh -c 'exec 3</dev/nvidia0; exec sleep infinity'")
    run = site.deploy(script=UNINSTALL)
    assert run.code == 0, run.text
    assert "nvidia 580.178.04 stays loaded until the next boot" in run.said_of(site.name)
    assert site.on("systemctl is-active trainer").strip() == "active"
