"""A driver that changes under services, or that somebody else changed: loaded again, or kept from harm, and named."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from rackserve.lab.gpu import GpuChoice, plan_of
from rackserve.lab.gpu_host import cards
from rackserve.lab.lab import Lab
from tests.lab.conftest import LabFactory
from tests.lab.gpu_sites import DRIVERS, NEWER, PREFLIGHT, SERVICE, VERSION, GpuSite, publish

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab(lab_factory: LabFactory) -> Lab:
    made = lab_factory("gpuchanges")
    made.up(1, "bookworm", gpus=GpuChoice("l40s", 2))
    return made


@pytest.fixture(scope="module")
def deployed(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> GpuSite:
    """A host that has its driver, with a service on it."""
    made = GpuSite(lab, tmp_path_factory.mktemp("deployed"), "h1")
    run = made.run()
    assert run.code == 0, run.text
    made.on(SERVICE)
    return made


def test_a_new_version_is_loaded_without_a_reboot_and_services_come_back(lab: Lab, deployed: GpuSite) -> None:
    publish(lab, deployed, NEWER)
    before = lab.boot_id(deployed.name)
    deployed.on("systemctl start rackserve@chat")
    deployed.data["driver_version"] = NEWER
    predicted = deployed.predicted(deployed.name, DRIVERS)
    run = deployed.run()
    assert run.code == 0, run.text
    assert run.changed(deployed.name) == predicted
    assert "way back: apt-get install --allow-downgrades" in run.said_of(deployed.name)
    assert deployed.on("cat /sys/module/nvidia/version").strip() == NEWER
    assert lab.boot_id(deployed.name) == before
    assert deployed.on("systemctl is-active rackserve@chat").strip() == "active"
    # And back: a stated version is meant, also where a newer one is there.
    deployed.data["driver_version"] = VERSION
    assert deployed.run().code == 0
    assert deployed.on("cat /sys/module/nvidia/version").strip() == VERSION
    assert deployed.run().changed(deployed.name) == []


def test_a_mismatch_keeps_services_from_starting_and_from_restarting_for_ever(lab: Lab, deployed: GpuSite) -> None:
    publish(lab, deployed, NEWER)
    deployed.on("systemctl start rackserve@chat")
    deployed.on(
        "rm /etc/apt/preferences.d/10-rackserve-driver; apt-get -q update; apt-get -q -y install nvidia-driver-cuda"
    )
    # It goes on with what it has loaded, until it is started anew.
    assert deployed.on("systemctl is-active rackserve@chat").strip() == "active"
    deployed.on("kill -KILL $(systemctl show -p MainPID --value rackserve@chat)")
    time.sleep(4)
    shown = deployed.on("systemctl show -p ActiveState -p NRestarts --value rackserve@chat").split()
    assert shown[1] in {"inactive", "failed"}
    assert int(shown[0]) <= 1
    said = deployed.on("journalctl -u gpu-ready -n 20 -o cat --no-pager")
    assert f"driver/library mismatch: the kernel has {VERSION} loaded, the libraries on disk are {NEWER}" in said
    assert deployed.on("systemctl show -p ExecMainStatus --value gpu-ready").strip() == "78"
    verified = deployed.rackserve("verify", str(deployed.write()))
    assert verified.returncode == 1
    assert "driver/library mismatch" in verified.stdout + verified.stderr
    deployed.converges()
    deployed.on("systemctl start rackserve@chat")


def test_a_driver_in_use_is_named_with_its_user_before_a_reboot_is_taken(lab: Lab, deployed: GpuSite) -> None:
    publish(lab, deployed, NEWER)
    deployed.on("systemd-run --unit=trainer --collect sh -c 'exec 3</dev/nvidia0; exec sleep infinity'")
    deployed.data |= {"driver_version": NEWER, "allow_reboot": False}
    before = lab.boot_id(deployed.name)
    deployed.refused("Driver | Driver loaded", "the driver takes a reboot", "trainer.service", "set allow_reboot")
    assert lab.boot_id(deployed.name) == before
    deployed.data["allow_reboot"] = True
    deployed.converges()
    assert lab.boot_id(deployed.name) != before
    assert deployed.on("cat /sys/module/nvidia/version").strip() == NEWER
    deployed.data["driver_version"] = VERSION
    deployed.converges()


def test_a_card_that_falls_off_the_bus_keeps_services_from_starting(lab: Lab, deployed: GpuSite) -> None:
    found = [replace(card, driver="nvidia") for card in cards(plan_of(lab.state().host(deployed.name)))]
    lab.set_pci(deployed.name, [found[0], replace(found[1], answers=False)])
    try:
        done = lab.ssh(deployed.name, "/usr/libexec/rackserve/gpu-ready --check", check=False)
        assert done.returncode == 78
        assert "GPU 0000:18:00.0 does not answer on the PCI bus" in done.stderr
        deployed.refused(PREFLIGHT, "GPU 0000:18:00.0 does not answer on the PCI bus")
    finally:
        lab.set_pci(deployed.name, found)
    deployed.converges()
