"""Promise 7: a driver that is not as planned keeps services from starting, once, with the reason.

Nothing upgrades a driver behind the plan's back, and a driver never costs a second reboot.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from rackserve.domain.errors import LabError
from rackserve.lab.gpu import GpuChoice, plan_of
from rackserve.lab.gpu_host import cards
from rackserve.lab.lab import Lab
from rackserve.lab.pci import PciDevice
from tests.lab.conftest import LabFactory
from tests.lab.gpu_sites import DRIVERS, NEWER, NO_WAIT, PREFLIGHT, SERVICE, VERSION, GpuSite, publish
from tests.lab.interrupting import deploy_broken

pytestmark = pytest.mark.lab

LOADED = "Driver | Driver loaded"
SERVICE_UNIT = "rackserve@chat"
INSTALLED = "dpkg-query -W -f '${Version}\\n' nvidia-driver-cuda nvidia-kernel-open-dkms | sort -u"
UPGRADE = "unattended-upgrade --verbose --dry-run 2>&1 | grep '^Packages that will be upgraded:'; true"
# As when the kernel's own module has got the cards first, with a console on it: it cannot be taken out.
NOUVEAU_FIRST = "rm -rf /sys/module/nvidia* /proc/driver/nvidia; mkdir /sys/module/nouveau; touch /run/lab-display"
# And again at every boot.
NOUVEAU_AGAIN = f"""printf '%s\\n' '[Unit]' 'After=lab-gpu.service' '[Service]' 'Type=oneshot' \
"ExecStart=/bin/sh -c '{NOUVEAU_FIRST}'" '[Install]' 'WantedBy=multi-user.target' \
>/etc/systemd/system/nouveau-first.service && systemctl -q enable nouveau-first"""
REBOOTED = "nspawn exit code 133"
REBOOTS_WITHIN_S = 120


@pytest.fixture(scope="module")
def lab(lab_factory: LabFactory) -> Lab:
    made = lab_factory("gpuchanges")
    made.up(1, "bookworm", gpus=GpuChoice("l40s", 2))
    return made


@pytest.fixture(scope="module")
def first(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> GpuSite:
    """A host that has its driver, with a service on it."""
    made = GpuSite(lab, tmp_path_factory.mktemp("deployed"), "h1")
    run = made.run()
    assert run.code == 0, run.text
    made.on(SERVICE)
    publish(lab, made, NEWER)
    made.on("apt-get -q update")
    lab.snapshot("h1", "deployed")
    return made


@pytest.fixture
def deployed(lab: Lab, first: GpuSite) -> GpuSite:
    """The same host, and what the inventory says of it, as they were before any test."""
    lab.restore("deployed", "h1")
    first.data.clear()
    first.data |= first._pristine["h1"]
    return first


def reboots(lab: Lab) -> int:
    """How often the host has been restarted from inside."""
    return lab.folder("h1").console.read_text(errors="replace").count(REBOOTED)


def found(lab: Lab) -> list[PciDevice]:
    return [replace(card, driver="nvidia") for card in cards(plan_of(lab.state().host("h1")))]


# ----------------------------------------------------------------- not as planned: no service, once, with the reason


def proprietary(site: GpuSite) -> None:
    site.on("sed -i 's/Open Kernel Module for //' /proc/driver/nvidia/version")


def newer_libraries(site: GpuSite) -> None:
    site.on("rm /etc/apt/preferences.d/10-rackserve-driver; apt-get -q -y install nvidia-driver-cuda")


def a_card_less(site: GpuSite) -> None:
    site.lab.set_pci("h1", found(site.lab)[:1])


def a_dead_card(site: GpuSite) -> None:
    first, second = found(site.lab)
    site.lab.set_pci("h1", [first, replace(second, answers=False)])


def no_module(site: GpuSite) -> None:
    site.on("rm -rf /sys/module/nvidia*; rm /lib/modules/*/updates/dkms/nvidia*.ko; depmod")


WRONG: dict[str, tuple[Callable[[GpuSite], None], str]] = {
    "mismatched": (
        newer_libraries,
        f"driver/library mismatch: the kernel has {VERSION} loaded, the libraries on disk are {NEWER}",
    ),
    "wrong flavour": (
        proprietary,
        "the proprietary kernel module is loaded, these cards are planned with the open one",
    ),
    "card missing": (a_card_less, "1 of 2 l40s on the PCI bus (0000:10:00.0): reseat the missing card"),
    "card dead": (a_dead_card, "GPU 0000:18:00.0 does not answer on the PCI bus"),
    "no module": (no_module, "kernel module nvidia is not loaded: "),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_driver_not_as_planned_keeps_a_service_from_starting_once_with_the_reason(
    deployed: GpuSite, wrong: str
) -> None:
    breaks, reason = WRONG[wrong]
    deployed.on(NO_WAIT)
    deployed.on(f"systemctl start {SERVICE_UNIT}; systemctl is-active {SERVICE_UNIT}")
    breaks(deployed)
    # It goes on with what it has loaded, until it is started anew.
    assert deployed.on(f"systemctl is-active {SERVICE_UNIT}").strip() == "active"
    cursor = deployed.on("journalctl -n 0 --show-cursor").partition("cursor: ")[2].strip()
    deployed.on(f"kill -KILL $(systemctl show -p MainPID --value {SERVICE_UNIT})")
    deployed.on("for i in $(seq 100); do systemctl -q is-failed gpu-ready && break; sleep 0.1; done")
    # RestartSec is a second here.
    time.sleep(2.5)
    assert deployed.on(f"systemctl is-active {SERVICE_UNIT}; true").strip() in {"inactive", "failed"}
    said = deployed.on(f"journalctl -u gpu-ready -o cat --no-pager --after-cursor='{cursor}'")
    assert len([line for line in said.splitlines() if reason in line]) == 1, said
    assert deployed.on("systemctl show -p ExecMainStatus --value gpu-ready").strip() == "78"
    # And whoever starts it by hand is refused as well.
    assert deployed.lab.ssh("h1", f"systemctl start {SERVICE_UNIT}", check=False).returncode != 0


def test_a_mismatch_is_told_by_verify_and_mended_by_the_next_run(deployed: GpuSite) -> None:
    newer_libraries(deployed)
    verified = deployed.rackserve("verify", str(deployed.write()))
    assert verified.returncode == 1
    assert "driver/library mismatch" in verified.stdout + verified.stderr
    deployed.converges()
    deployed.on(f"systemctl start {SERVICE_UNIT}")


def test_a_card_that_falls_off_the_bus_is_refused_before_anything_is_changed(deployed: GpuSite) -> None:
    a_dead_card(deployed)
    deployed.refused(PREFLIGHT, "GPU 0000:18:00.0 does not answer on the PCI bus")


# ----------------------------------------------------------------------- nothing upgrades it behind the plan's back


def test_an_upgrade_of_the_whole_system_leaves_the_driver_at_its_version(deployed: GpuSite) -> None:
    assert NEWER in deployed.on("apt-cache madison nvidia-driver-cuda")
    deployed.on("DEBIAN_FRONTEND=noninteractive apt-get -q -y dist-upgrade")
    assert deployed.on(INSTALLED).split() == [f"{VERSION}-1"]
    # What the pin is good for.
    deployed.on("rm /etc/apt/preferences.d/10-rackserve-driver")
    assert f"Inst nvidia-driver-cuda [{VERSION}-1] ({NEWER}-1" in deployed.on("apt-get -s dist-upgrade")


def test_the_upgrade_at_night_leaves_the_driver_alone_though_no_pin_holds_it(deployed: GpuSite) -> None:
    deployed.on("DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install unattended-upgrades")
    deployed.on("rm /etc/apt/preferences.d/10-rackserve-driver")
    deployed.on("echo 'Unattended-Upgrade::Origins-Pattern { \"origin=NVIDIA\"; };' >/etc/apt/apt.conf.d/60lab")
    assert "nvidia" not in deployed.on(UPGRADE)
    # What the guard is good for.
    deployed.on("rm /etc/apt/apt.conf.d/52rackserve-unattended")
    assert "nvidia-driver-cuda" in deployed.on(UPGRADE)


# -------------------------------------------------------------------------------------------- never a second reboot


def test_a_new_version_is_loaded_without_a_reboot_and_services_come_back(lab: Lab, deployed: GpuSite) -> None:
    before = lab.boot_id(deployed.name)
    deployed.on(f"systemctl start {SERVICE_UNIT}")
    deployed.data["driver_version"] = NEWER
    predicted = deployed.predicted(deployed.name, DRIVERS)
    run = deployed.run()
    assert run.code == 0, run.text
    assert run.changed(deployed.name) == predicted
    assert "way back: apt-get install --allow-downgrades" in run.said_of(deployed.name)
    assert deployed.on("cat /sys/module/nvidia/version").strip() == NEWER
    assert lab.boot_id(deployed.name) == before
    assert deployed.on(f"systemctl is-active {SERVICE_UNIT}").strip() == "active"
    # And back: a stated version is meant, also where a newer one is there.
    deployed.data["driver_version"] = VERSION
    assert deployed.run().code == 0
    assert deployed.on("cat /sys/module/nvidia/version").strip() == VERSION
    assert deployed.run().changed(deployed.name) == []


def test_a_driver_in_use_is_named_with_its_user_before_a_reboot_is_taken(lab: Lab, deployed: GpuSite) -> None:
    deployed.on("systemd-run --unit=trainer --collect sh -c 'exec 3</dev/nvidia0; exec sleep infinity'")
    deployed.data |= {"driver_version": NEWER, "allow_reboot": False}
    before = lab.boot_id(deployed.name)
    deployed.refused(LOADED, "the driver takes a reboot", "trainer.service", "set allow_reboot")
    assert lab.boot_id(deployed.name) == before
    deployed.data["allow_reboot"] = True
    taken = reboots(lab)
    deployed.converges()
    assert reboots(lab) == taken + 1
    assert deployed.on("cat /sys/module/nvidia/version").strip() == NEWER


def test_a_reboot_that_did_not_help_is_told_and_never_taken_again(lab: Lab, deployed: GpuSite) -> None:
    deployed.on(NOUVEAU_AGAIN)
    deployed.on(NOUVEAU_FIRST)
    taken = reboots(lab)
    deployed.refused(LOADED, "rebooted for this driver already, and it still takes a reboot: nouveau drives the cards")
    assert reboots(lab) == taken + 1
    deployed.refused(LOADED, "rebooted for this driver already, and it still takes a reboot: nouveau drives the cards")
    assert reboots(lab) == taken + 1


def test_a_run_that_dies_while_its_host_reboots_is_picked_up_without_another_reboot(
    lab: Lab, deployed: GpuSite
) -> None:
    deployed.on(NOUVEAU_FIRST)
    taken = reboots(lab)

    def dies(process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + REBOOTS_WITHIN_S
        while reboots(lab) == taken:
            assert time.monotonic() < deadline, "the host was never rebooted"
            time.sleep(0.05)
        process.kill()

    assert deploy_broken(deployed, {"rebooting: nouveau drives the cards": dies}, DRIVERS).code == -9
    wait_for_the_boot(lab)
    deployed.converges()
    assert reboots(lab) == taken + 1


def wait_for_the_boot(lab: Lab) -> None:
    """The moment between two boots counts as switched off."""
    for _ in range(10):
        try:
            return lab.wait("h1")
        except LabError:
            time.sleep(0.5)
    return lab.wait("h1")
