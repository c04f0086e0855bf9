"""What lands on a host for its GPUs, read by the programs that will read it there."""

from __future__ import annotations

import json
import plistlib
import re
import subprocess

import pytest

from rackserve.planning.driver_plan import DriverPlan
from rackserve.planning.kernel_packages import matches_any
from rackserve.rendering.drivers import (
    CDI_DROP_IN,
    EXPECTED,
    MODPROBE,
    MODULES_LOAD,
    PREFERENCES,
    UNATTENDED,
    all_files,
    memory_plist,
)
from rackserve.rendering.text import RenderedFile
from tests import needs
from tests.planning.driver_pairs import CATALOG, outcome, planned

needs_apt = needs.programs("apt-cache")
PLANS = [
    plan
    for tag in CATALOG.gpus
    for system in CATALOG.stacks.systems
    if isinstance(plan := outcome(tag, system, container_engines=["docker"] if "l40s" in tag else []), DriverPlan)
]


def files(plan: DriverPlan) -> dict[str, RenderedFile]:
    return {file.path: file for file in all_files(plan)}


def test_every_file_of_every_plan_is_text_with_a_place_of_its_own():
    for plan in PLANS:
        written = all_files(plan)
        assert len({file.path for file in written}) == len(written)
        assert all(file.text.endswith("\n") and file.path.startswith("/") for file in written)
        assert bool(written) == bool(plan.modules)


@needs_apt
@pytest.mark.parametrize("system", ["debian-12", "ubuntu-24.04"])
def test_apt_understands_the_pins(tmp_path, system):
    text = files(planned("h100-sxm-80gb", system, container_engines=["docker"]))[PREFERENCES].text
    (tmp_path / "pins").write_text(text)
    done = subprocess.run(
        ["apt-cache", "-o", f"Dir::Etc::preferences={tmp_path}/pins", "policy"],
        capture_output=True,
        text=True,
        check=False,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_vendors_driver_is_pinned_to_its_version_and_a_distributions_is_not():
    debian = files(planned("l40s", "debian-12"))[PREFERENCES].text
    assert "Pin: version 580.178.04-*\nPin-Priority: 1001" in debian
    assert "nvidia-kernel-*" in debian
    ubuntu = files(planned("l40s", "ubuntu-24.04"))[PREFERENCES].text
    assert "Pin: version" not in ubuntu
    # NVIDIA's repository comes along for the data-centre GPU manager: the driver in it must not win.
    assert "Pin: release o=NVIDIA\nPin-Priority: 100" in ubuntu


@needs_apt
@pytest.mark.parametrize("system", ["debian-12", "debian-13", "ubuntu-24.04", "ubuntu-26.04"])
def test_the_nights_upgrade_leaves_driver_and_kernel_alone(tmp_path, system):
    plan = planned("h100-sxm-80gb", system)
    (tmp_path / "apt.conf").write_text(files(plan)[UNATTENDED].text)
    done = subprocess.run(
        ["apt-config", "-c", str(tmp_path / "apt.conf"), "dump", "Unattended-Upgrade::Package-Blacklist"],
        capture_output=True,
        text=True,
        check=True,
    )
    patterns = re.findall(r'Package-Blacklist:: "(.+)";', done.stdout)
    # As unattended-upgrades does: matched from the beginning of the name.
    blocked = {name for name in plan.packages if any(re.match(pattern, name) for pattern in patterns)}
    assert blocked >= {name for name in plan.packages if matches_any(name, plan.together)}
    for name in ("linux-image-6.8.0-60-generic", "linux-modules-nvidia-580-server-open-generic", "linux-headers-amd64"):
        assert any(re.match(pattern, name) for pattern in patterns)
    for name in ("openssl", "libc6", "linux-libc-dev", "nvidia-container-toolkit", "libnvidia-container1"):
        if not matches_any(name, plan.together):
            assert not any(re.match(pattern, name) for pattern in patterns), name


def test_gpu_ready_is_told_what_the_plan_says():
    plan = planned("h100-sxm-80gb", "debian-12", gpu_count=8)
    assert json.loads(files(plan)[EXPECTED].text) == {
        "vendor": "nvidia",
        "tag": "h100-sxm-80gb",
        "pci_ids": ["10de:2330"],
        "count": 8,
        "vram_mib": 81559,
        "modules": ["nvidia", "nvidia_uvm"],
        "branch": "580",
        "flavour": "open",
        "fabric": True,
    }
    assert files(plan)[MODULES_LOAD].text.splitlines()[1:] == ["nvidia", "nvidia_uvm"]


def test_nouveau_is_kept_from_nvidias_cards_only():
    assert "blacklist nouveau" in files(planned("rtx-3090", "debian-12"))[MODPROBE].text
    assert MODPROBE not in files(planned("mi300x", "ubuntu-24.04"))


def test_podman_of_noble_gets_a_specification_that_it_can_read():
    noble = files(planned("l40s", "ubuntu-24.04", container_engines=["docker"]))
    assert "no-additional-gids" in noble[CDI_DROP_IN].text
    assert CDI_DROP_IN not in files(planned("l40s", "debian-12", container_engines=["docker"]))


def test_the_memory_limit_of_a_mac_is_set_at_every_start():
    job = plistlib.loads(memory_plist(98304).encode())
    assert job["ProgramArguments"] == ["/usr/sbin/sysctl", "iogpu.wired_limit_mb=98304"]
    assert job["RunAtLoad"] is True
