"""Drivers taken off hosts again, whoever was there before, and whoever uses them: two hosts, one removal."""

from __future__ import annotations

import pytest

from rackserve.lab.gpu import GpuChoice
from rackserve.lab.lab import Lab
from tests.lab.conftest import LabFactory
from tests.lab.deploying import Run, Site
from tests.lab.gpu_sites import DRIVERS, UNINSTALL, VERSION

pytestmark = pytest.mark.lab
# A package of somebody else's that needs one of the driver's.
NEEDING = """mkdir -p /tmp/needing/DEBIAN && printf '%s\\n' 'Package: monitor' 'Version: 1' 'Architecture: all' \
'Maintainer: n <n@n.example>' 'Description: x' 'Depends: nvidia-driver-cuda' >/tmp/needing/DEBIAN/control &&
dpkg-deb -b /tmp/needing /tmp/m.deb && dpkg -i /tmp/m.deb"""


@pytest.fixture(scope="module")
def lab(lab_factory: LabFactory) -> Lab:
    made = lab_factory("gpuremoval")
    made.up(2, "bookworm", gpus=GpuChoice("l40s", 2))
    return made


@pytest.fixture(scope="module")
def removal(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """h1 had one of the packages before, and has one since that needs another; on h2 somebody uses the cards."""
    site = Site(lab, tmp_path_factory.mktemp("removal"))
    lab.ssh("h1", "apt-get -q update; apt-get -q -y install --no-install-recommends dkms")
    run = site.deploy(script=DRIVERS)
    assert run.code == 0, run.text
    lab.ssh("h1", NEEDING)
    lab.ssh("h2", "systemd-run --unit=trainer --collect sh -c 'exec 3</dev/nvidia0; exec sleep infinity'")
    return site.deploy(script=UNINSTALL)


def test_what_was_there_before_stays_and_what_others_need_is_named(lab: Lab, removal: Run) -> None:
    assert removal.code == 0, removal.text
    assert "nvidia-driver-cuda, needed by monitor" in removal.said_of("h1")
    left = lab.ssh("h1", "dpkg-query -W -f '${db:Status-Abbrev}${Package}\\n'").stdout.splitlines()
    assert {"ii dkms", "ii monitor", "ii nvidia-driver-cuda"} <= set(left)
    assert not any("nvidia-kernel-open-dkms" in line for line in left if line.startswith("ii"))
    ours = "ls -d /etc/rackserve /var/lib/rackserve /etc/apt/sources.list.d/rackserve*; true"
    assert lab.ssh("h1", ours).stdout == ""


def test_a_driver_in_use_is_taken_off_and_its_module_told(lab: Lab, removal: Run) -> None:
    assert removal.code == 0, removal.text
    assert f"nvidia {VERSION} stays loaded until the next boot" in removal.said_of("h2")
    assert lab.ssh("h2", "systemctl is-active trainer").stdout.strip() == "active"
