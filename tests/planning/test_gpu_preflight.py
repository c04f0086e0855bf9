"""What a host is refused for before its driver is touched: every verdict, and for no tag and system one too many."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.domain.gpu_state import GpuState, PciDevice
from rackserve.domain.host import Host
from rackserve.planning.driver_plan import DriverPlan
from rackserve.planning.gpu_preflight import gpu_notes, gpu_problems
from rackserve.planning.kernel_packages import asked_for
from tests.planning.driver_pairs import CATALOG, INSTALLING, planned

DEBIAN, UBUNTU = "6.1.0-56-amd64", "6.8.0-151-generic"
PLENTY = {"/": 90_000, "/var": 90_000, "/boot": 90_000}


def cards(plan: DriverPlan, count: int | None = None, **values: Any) -> tuple[PciDevice, ...]:
    """The cards of the plan, with all of their memory visible."""
    facts = {"id": plan.gpu_ids[0], "device_class": "030200", "bar_mib": plan.vram_mib * 2} | values
    number = plan.gpu_count if count is None else count
    return tuple(PciDevice(address=f"0000:{0x1B + n:02x}:00.0", **facts) for n in range(number))


def state_of(plan: DriverPlan, kernel: str = DEBIAN, **values: Any) -> GpuState:
    """A virgin host on which the plan can be carried out."""
    asked = [pattern.replace("{release}", kernel) for pattern in asked_for(plan)]
    facts = {
        "system": plan.system,
        "architecture": "x86_64",
        "kernel": kernel,
        "next_kernel": kernel,
        "secure_boot": False,
        "devices": cards(plan),
        "candidates": dict.fromkeys(asked, "1"),
        "free_mib": PLENTY,
    }
    return GpuState.model_validate(facts | values)


def kernel_of(plan: DriverPlan) -> str:
    """The kernel that the system comes with, or the newer one that the plan brings."""
    if plan.kernel_package:
        return "6.17.0-20-generic"
    return f"{CATALOG.stacks.systems[plan.system].kernel}.0-44-generic"


def host(tag: str = "l40s", **settings: Any) -> Host:
    return Host.model_validate({"name": "h1", "gpu_tag": tag} | settings)


def refused(plan: DriverPlan, state: GpuState, **settings: Any) -> list[str]:
    return gpu_problems(plan, host(plan.gpu_tag, gpu_count=plan.gpu_count, **settings), state, CATALOG)


@pytest.mark.parametrize(("tag", "system"), INSTALLING, ids=str)
def test_a_host_as_its_plan_needs_it_is_not_refused(tag, system):
    plan = planned(tag, system, gpu_count=2)
    assert refused(plan, state_of(plan, kernel_of(plan))) == []


@pytest.mark.parametrize(("tag", "system"), INSTALLING, ids=str)
def test_another_card_than_the_tags_is_refused_on_every_system(tag, system):
    plan = planned(tag, system)
    other = "t4" if "10de:1eb8" not in plan.gpu_ids else "l4"
    device = cards(planned(other, "ubuntu-24.04"))
    (line,) = refused(plan, state_of(plan, kernel_of(plan), devices=device))
    assert line.startswith(f"gpu_tag says {tag} ({' or '.join(plan.gpu_ids)}), the PCI bus has {device[0].id} (tag ")


def test_all_verdicts_come_at_once():
    plan = planned("l40s", "debian-12", gpu_count=8)
    state = state_of(
        plan,
        devices=cards(plan, 7),
        run_file=True,
        secure_boot=True,
        candidates={},
        free_mib={"/": 100},
        packages={"nvidia-open-kernel-dkms": "530.41.03-1"},
    )
    assert [line.split(":")[0][:40] for line in refused(plan, state)] == [
        "gpu_count says 8, the PCI bus has 7 l40s",
        "NVIDIA's .run installer has put a driver",
        "nvidia-open-kernel-dkms of another drive",
        "Secure Boot is on and nvidia is built on",
        "the running kernel 6.1.0-56-amd64 has no",
        "/ has 100 MiB free, the driver needs 512",
    ]


def test_a_dead_card_and_one_of_a_virtual_machine_are_told_apart():
    plan = planned("l40s", "debian-12", gpu_count=2)
    dead = cards(plan, 1, answers=False)
    given = tuple(device.model_copy(update={"address": "0000:99:00.0"}) for device in cards(plan, 1, driver="vfio-pci"))
    lines = refused(plan, state_of(plan, devices=(*dead, *given)))
    assert [line.partition(" (")[0] for line in lines] == [
        "GPU 0000:1b:00.0 does not answer on the PCI bus",
        "GPU 0000:99:00.0 is given away to a virtual machine",
    ]


def test_too_many_cards_and_cards_of_another_tag_are_refused():
    plan = planned("l40s", "debian-12")
    more = refused(plan, state_of(plan, devices=cards(plan, 2)))
    assert more[0].startswith("gpu_count says 1, the PCI bus has 2 l40s (0000:1b:00.0, 0000:1c:00.0): state them all")
    other = PciDevice(address="0000:99:00.0", id="10de:1eb8", device_class="030200")
    (line,) = refused(plan, state_of(plan, devices=(*cards(plan), other)))
    assert line.startswith("the PCI bus also has 10de:1eb8 (tag t4) at 0000:99:00.0: a host has cards of one tag")


def test_display_chips_and_switches_are_no_cards():
    plan = planned("h100-sxm-80gb", "debian-12", gpu_count=8)
    bmc = PciDevice(address="0000:03:00.0", id="1a03:2000", device_class="030000")
    switch = PciDevice(address="0000:07:00.0", id="10de:22a3", device_class="068000")
    state = state_of(plan, devices=(*cards(plan), bmc, switch))
    assert refused(plan, state) == []
    assert gpu_notes(plan, host("h100-sxm-80gb", gpu_count=8), state, CATALOG) == []


def test_an_arc_card_behind_a_keyhole_is_refused():
    plan = planned("arc-b580", "ubuntu-26.04")
    (line,) = refused(plan, state_of(plan, "7.0.0-44-generic", devices=cards(plan, bar_mib=256)))
    assert line.startswith(f"GPU 0000:1b:00.0 shows 256 MiB of its {plan.vram_mib} MiB: switch Resizable BAR")


@pytest.mark.parametrize("tag", ["l40s", "mi300x"])
def test_rivals_are_named_with_the_command_that_removes_them(tag):
    plan = planned(tag, "ubuntu-24.04")
    rival = {"l40s": "cuda-drivers-580", "mi300x": "amdgpu-install"}[tag]
    (line,) = refused(plan, state_of(plan, UBUNTU, packages={rival: "1"}))
    assert f"remove with `apt-get purge {rival}`" in line
    assert (
        "dnf remove"
        in refused(
            planned("l40s", "rocky-9"),
            state_of(planned("l40s", "rocky-9"), packages={"akmod-nvidia": "1"}),
        )[0]
    )


@pytest.mark.parametrize(("tag", "system"), INSTALLING, ids=str)
def test_what_the_plan_wants_is_no_rival_of_it(tag, system):
    plan = planned(tag, system)
    there = {name: plan.version or "1" for name in plan.packages if "{" not in name}
    assert refused(plan, state_of(plan, kernel_of(plan), packages=there)) == []


def test_secure_boot_is_refused_with_both_ways_out_where_the_module_is_built():
    plan = planned("l40s", "debian-12")
    (line,) = refused(plan, state_of(plan, secure_boot=True))
    assert "Switch Secure Boot off" in line
    assert "mokutil --import /var/lib/dkms/mok.pub" in line
    (line,) = refused(plan, state_of(plan, secure_boot=True), secure_boot="mok")
    assert "is not enrolled" in line
    assert refused(plan, state_of(plan, secure_boot=True, key_enrolled=True), secure_boot="mok") == []
    amd = planned("mi300x", "ubuntu-24.04")
    assert "/var/lib/shim-signed/mok/MOK.der" in refused(amd, state_of(amd, UBUNTU, secure_boot=True))[0]


def test_a_signed_module_does_not_mind_secure_boot():
    plan = planned("l40s", "ubuntu-24.04")
    assert refused(plan, state_of(plan, UBUNTU, secure_boot=True)) == []


@pytest.mark.parametrize("system", ["debian-12", "ubuntu-24.04", "rocky-9"])
def test_both_kernels_need_a_module_or_headers(system):
    plan = planned("l40s", system)
    state = state_of(plan, UBUNTU, next_kernel="6.8.0-160-generic")
    (line,) = refused(plan, state)
    assert line.startswith("the kernel of the next boot 6.8.0-160-generic has no ")
    assert refused(plan, state_of(plan, UBUNTU, candidates=None)) == []
    (line,) = refused(plan, state_of(plan, UBUNTU, candidates={}))
    assert line.startswith(f"the running kernel {UBUNTU} has no ")


def test_headers_that_are_there_need_no_candidate():
    plan = planned("l40s", "debian-12")
    assert refused(plan, state_of(plan, candidates={}, headers=(DEBIAN,))) == []


def test_amds_driver_has_kernels_that_it_builds_for():
    plan = planned("mi300x", "ubuntu-24.04", driver_branch="30.30")
    highest = CATALOG.stacks.amd_drivers["30.30"].kernel_max
    (line,) = refused(plan, state_of(plan, "6.19.3-generic"))
    assert line.startswith(f"amdgpu 30.30 builds for Linux up to {highest}, the running kernel is 6.19.3-generic")
    assert refused(plan, state_of(plan, "6.18.9-generic")) == []


def test_an_intel_card_needs_a_kernel_that_knows_it():
    plan = planned("arc-b580", "ubuntu-26.04")
    floor = CATALOG.gpus["arc-b580"].driver_min
    (line,) = refused(plan, state_of(plan, "6.8.0-151-generic"))
    assert line.startswith(f"xe needs Linux {floor}, the running kernel is 6.8.0-151-generic")


def test_small_disks_are_told_by_mount_point_and_only_while_there_is_something_to_install():
    plan = planned("l40s", "debian-12")
    tight = {"/": 6000, "/var": 500, "/boot": 100}
    assert [line.split()[0] for line in refused(plan, state_of(plan, free_mib=tight))] == ["/var", "/boot"]
    one = {"/": 100, "/var": 100, "/boot": 100}
    assert [line.split()[0] for line in refused(plan, state_of(plan, free_mib=one))] == ["/"]
    there = dict.fromkeys((*plan.prerequisites, *plan.packages), f"{plan.version}-1")
    assert refused(plan, state_of(plan, free_mib=one, packages=there, headers=(DEBIAN,))) == []


def test_a_hold_at_another_version_is_refused_and_at_the_planned_one_is_not():
    plan = planned("l40s", "debian-12")
    name = "nvidia-driver-cuda"
    held = state_of(plan, packages={name: "570.1-1"}, held=frozenset({name}))
    (line,) = refused(plan, held)
    assert f"on hold: {name} 570.1-1, planned is {plan.version}" in line
    assert f"apt-mark unhold {name}" in line
    right = state_of(plan, packages={name: f"{plan.version}-1"}, held=frozenset({name}))
    assert refused(plan, right) == []


def test_notes_tell_what_is_about_to_happen():
    plan = planned("l40s", "debian-12")
    state = state_of(
        plan,
        loaded={"nouveau": "", "nvidia": "570.1"},
        unsettled=("dkms",),
        cloud_init="running",
        secure_boot=True,
        devices=(*cards(plan), PciDevice(address="0000:99:00.0", id="10de:ffff", device_class="030000")),
    )
    lines = gpu_notes(plan, host(secure_boot=False), state, CATALOG)
    for words in (
        "10de:ffff",
        "nouveau",
        f"planned is {plan.version}",
        "dkms half-installed",
        "cloud-init",
        "has it on",
    ):
        assert [line for line in lines if words in line], words


def test_a_series_of_amds_is_no_version_of_its_module():
    plan = planned("mi300x", "rhel-9")
    there = dict.fromkeys((*plan.prerequisites, *plan.packages), "1-1")
    kernel = "5.14.0-570.el9.x86_64"
    state = state_of(plan, kernel, packages=there, loaded={"amdgpu": "6.16.13"}, module_versions={kernel: "6.16.13"})
    assert gpu_notes(plan, host("mi300x"), state, CATALOG) == []
