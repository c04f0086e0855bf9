"""Simulated hardware: folders that real `lspci` reads as /sys/bus/pci and real tools as /sys/module.

Every host gets folders of its own, empty at first, so that the machine's real GPU and driver never show through.
Devices can be added and removed while the host runs, as when a GPU falls off the bus.
"""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rackserve.domain.errors import InputError, Problem
from rackserve.lab.shell import readable_by_all

SYSFS_PCI = Path("/sys/bus/pci")
SYSFS_MODULES = Path("/sys/module")
_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_CONFIG_SIZE = 256
_REVISION = 0xA1
# Where a 64-bit prefetchable window stands, what its flags are, and an address that no real memory has.
_MEMORY_WINDOW = 2
_PREFETCHABLE = 0x14220C
_BASE = 0x20000000000


@dataclass(frozen=True, slots=True)
class PciDevice:
    """One device: address, identity, 24-bit class (0x030200 is a 3D controller) and the driver bound to it.

    bar_mib: its largest memory window. answers: it is on the bus; of one that fell off every bit reads as one.
    render: the render node that its driver made, as in renderD128.
    """

    address: str
    vendor: int
    device: int
    device_class: int = 0x030200
    driver: str = ""
    subsystem: int = 1
    numa_node: int = 0
    bar_mib: int = 0
    answers: bool = True
    render: str = ""

    def __post_init__(self) -> None:
        """Refuse an address sysfs would not have."""
        if not _ADDRESS.fullmatch(self.address):
            raise InputError([Problem(f"{self.address!r} is no PCI address", hint="like 0000:41:00.0")])


def attributes(device: PciDevice) -> dict[str, str]:
    """The text files sysfs has for the device."""
    base, sub, interface = device.device_class >> 16, device.device_class >> 8 & 255, device.device_class & 255
    ids = f"v{device.vendor:08X}d{device.device:08X}sv{device.vendor:08X}sd{device.subsystem:08X}"
    uevent = {
        **({"DRIVER": device.driver} if device.driver else {}),
        "PCI_CLASS": f"{device.device_class:X}",
        "PCI_ID": f"{device.vendor:04X}:{device.device:04X}",
        "PCI_SUBSYS_ID": f"{device.vendor:04X}:{device.subsystem:04X}",
        "PCI_SLOT_NAME": device.address,
    }
    return {
        "vendor": f"0x{device.vendor:04x}",
        "device": f"0x{device.device:04x}",
        "class": f"0x{device.device_class:06x}",
        "revision": f"0x{_REVISION:02x}",
        "subsystem_vendor": f"0x{device.vendor:04x}",
        "subsystem_device": f"0x{device.subsystem:04x}",
        "irq": "0",
        "enable": "1",
        "numa_node": str(device.numa_node),
        "resource": "\n".join(_windows(device)),
        "modalias": f"pci:{ids}bc{base:02X}sc{sub:02X}i{interface:02X}",
        "uevent": "\n".join(f"{key}={value}" for key, value in uevent.items()),
    }


def _windows(device: PciDevice) -> list[str]:
    """First and last address and flags of the six memory windows and the ROM; unused ones are all zero."""
    lines = ["0x0000000000000000 0x0000000000000000 0x0000000000000000"] * 7
    if device.bar_mib:
        lines[_MEMORY_WINDOW] = f"{_BASE:#018x} {_BASE + (device.bar_mib << 20) - 1:#018x} {_PREFETCHABLE:#018x}"
    return lines


def configuration_space(device: PciDevice) -> bytes:
    """The 256 bytes lspci takes the identity from."""
    if not device.answers:
        return b"\xff" * _CONFIG_SIZE
    space = bytearray(_CONFIG_SIZE)
    command, status = 0x0006, 0x0010
    struct.pack_into("<HHHHB", space, 0, device.vendor, device.device, command, status, _REVISION)
    space[9:12] = device.device_class.to_bytes(3, "little")
    struct.pack_into("<HH", space, 0x2C, device.vendor, device.subsystem)
    return bytes(space)


@readable_by_all()
def write_tree(folder: Path, devices: Iterable[PciDevice]) -> None:
    """Make `folder` show exactly these devices; each appears whole, by a rename."""
    wanted = {device.address: device for device in devices}
    for part in ("devices", "drivers", "slots"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for present in (folder / "devices").iterdir():
        if present.name not in wanted:
            shutil.rmtree(present)
    for driver in {device.driver for device in wanted.values() if device.driver}:
        (folder / "drivers" / driver).mkdir(exist_ok=True)
    for device in wanted.values():
        _replace_device(folder, device)


def _replace_device(folder: Path, device: PciDevice) -> None:
    fresh, final = folder / f".{device.address}", folder / "devices" / device.address
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for name, text in attributes(device).items():
        (fresh / name).write_text(f"{text}\n")
    (fresh / "config").write_bytes(configuration_space(device))
    if device.driver:
        (fresh / "driver").symlink_to(f"../../drivers/{device.driver}")
    if device.render:
        (fresh / "drm" / device.render).mkdir(parents=True)
    if final.exists():
        shutil.rmtree(final)
    fresh.rename(final)


@readable_by_all()
def write_modules(folder: Path, versions: Mapping[str, str]) -> None:
    """Make `folder` show exactly these kernel modules as loaded, each with its version."""
    folder.mkdir(parents=True, exist_ok=True)
    for present in folder.iterdir():
        if present.name not in versions:
            shutil.rmtree(present)
    for module, version in versions.items():
        (folder / module).mkdir(exist_ok=True)
        (folder / module / "version").write_text(f"{version}\n")
        (folder / module / "initstate").write_text("live\n")


def bind_arguments(folder: Path, sysfs: Path, *, writable: bool = False) -> list[str]:
    """Bind arguments for nspawn that show `folder` in place of `sysfs`; none where the machine has no such thing.

    writable: the host itself loads simulated drivers, which shows there.
    """
    option = "--bind" if writable else "--bind-ro"
    return [f"{option}={_escape(folder)}:{sysfs}"] if sysfs.is_dir() else []


def _escape(path: Path) -> str:
    """Protect colons, at which nspawn splits its bind arguments."""
    return str(path).replace("\\", "\\\\").replace(":", "\\:")
