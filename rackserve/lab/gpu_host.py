"""A lab host's simulated GPUs: its PCI bus, its kernel's own modules, and programs that load them for show."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rackserve.domain.errors import LabError
from rackserve.lab import pci
from rackserve.lab.elf import STANDINS, kernel_module
from rackserve.lab.gpu_packages import kernel_fields
from rackserve.lab.nspawn import HostFolder
from rackserve.lab.shell import readable_by_all
from rackserve.planning.driver_plan import DriverPlan

MAX_GPUS = 16
SETTINGS = "/etc/lab-gpu.conf"
_PROC_DRIVER = Path("/proc/driver")
_SWITCHES = 4
_NVSWITCH = 0x22A3
# What a kernel would take for the cards, best first; those of the kernel itself are there from the start.
_CANDIDATES = {"nvidia": ("nvidia", "nouveau"), "amd": ("amdgpu",), "intel": ("xe", "i915")}
_IN_KERNEL = {"nvidia": ("nouveau",), "amd": ("amdgpu",), "intel": ("xe", "i915")}
_UNIT = """[Unit]
Description=Simulated GPUs of the lab
DefaultDependencies=no
Before=sysinit.target systemd-modules-load.service
[Service]
Type=oneshot
ExecStart=/usr/local/libexec/lab-gpu
[Install]
WantedBy=sysinit.target
"""
_OS_RELEASE = (
    'ID={id}\nVERSION_ID="{version}"\nVERSION_CODENAME={codename}\nPRETTY_NAME="{system}, pretended by a lab"\n'
)
_CODENAMES = {"ubuntu-22.04": "jammy", "ubuntu-24.04": "noble", "ubuntu-26.04": "resolute"}


def cards(plan: DriverPlan) -> tuple[pci.PciDevice, ...]:
    """The GPUs of a plan, with NVSwitches where its boards have them."""
    vendor, device = (int(part, 16) for part in plan.gpu_ids[0].split(":"))
    window = 1 << (plan.vram_mib - 1).bit_length()
    device_class = 0x120000 if plan.vendor == "amd" else 0x030200
    gpus = [
        pci.PciDevice(address(number), vendor, device, device_class=device_class, bar_mib=window)
        for number in range(plan.gpu_count)
    ]
    switches = [
        pci.PciDevice(f"0000:0{number + 1}:00.0", vendor, _NVSWITCH, device_class=0x068000)
        for number in range(_SWITCHES)
    ]
    return (*gpus, *(switches if plan.fabric else ()))


def address(number: int) -> str:
    """The PCI address of a simulated GPU."""
    return f"0000:{0x10 + number * 8:02x}:00.0"


@readable_by_all()
def furnish(folder: HostFolder, plan: DriverPlan, system: str) -> None:
    """Put the simulation on a host's disk before its first boot.

    system: what the host says it runs, empty for what it does run.
    """
    if not _PROC_DRIVER.is_dir():
        raise LabError(f"this machine's kernel has no {_PROC_DRIVER}, over which a simulated driver shows itself")
    pci.write_tree(folder.pci, cards(plan))
    root = folder.upper
    for path, text in _texts(plan, system):
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for name, place in (("modprobe", "sbin"), ("rmmod", "sbin"), ("lab-gpu", "libexec")):
        program = root / "usr/local" / place / name
        program.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(STANDINS / name, program)
    wanted = root / "etc/systemd/system/sysinit.target.wants/lab-gpu.service"
    wanted.parent.mkdir(parents=True, exist_ok=True)
    wanted.unlink(missing_ok=True)
    wanted.symlink_to("../lab-gpu.service")
    _kernel(root, plan)


def _texts(plan: DriverPlan, system: str) -> Iterator[tuple[str, str]]:
    addresses = " ".join(address(number) for number in range(MAX_GPUS))
    modules = " ".join(_CANDIDATES[plan.vendor])
    yield SETTINGS, f"addresses='{addresses}'\nmodules='{modules}'\nvram_mib={plan.vram_mib}\n"
    yield "/etc/lab-gpu-vram", f"{plan.vram_mib}\n"
    yield "/etc/systemd/system/lab-gpu.service", _UNIT
    if system:
        name, _, version = system.partition("-")
        codename = _CODENAMES.get(system, "")
        yield "/etc/os-release", _OS_RELEASE.format(id=name, version=version, codename=codename, system=system)


def _kernel(root: Path, plan: DriverPlan) -> None:
    """The running kernel's folder of modules, as far as it knows these cards by itself."""
    kernel = os.uname().release
    folder = root / "usr/lib/modules" / kernel
    for module in _IN_KERNEL[plan.vendor]:
        file = folder / "kernel/drivers/gpu" / f"{module}.ko"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(kernel_module(kernel_fields(module)))
    for name in ("modules.order", "modules.builtin"):
        (folder / name).write_text("")
