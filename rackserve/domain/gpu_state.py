"""A host's GPUs and what drives them, as they are now: read from the host, compared with a plan."""

from __future__ import annotations

from collections.abc import Mapping

from rackserve.domain.base import Frozen
from rackserve.domain.stack import Flavour


class PciDevice(Frozen):
    """One display controller, accelerator or NVSwitch bridge.

    id: vendor:device. device_class: six hex digits (030200 is a 3D controller). driver: bound to it, empty for none.
    bar_mib: its largest memory window, in MiB; with resizable BAR that is all of its memory.
    answers: its configuration space reads as something else than all ones, which is how a card off the bus reads.
    """

    address: str
    id: str
    device_class: str
    driver: str = ""
    bar_mib: int = 0
    answers: bool = True


class GpuState(Frozen):
    """What a run sees of a host before it changes the driver.

    system: as in "ubuntu-24.04". architecture, kernel: of `uname`. next_kernel: the one that boots next, empty where
        nothing on disk says so. kernels: all that are installed.
    boot_id: another after every boot.
    secure_boot: None where the firmware cannot be asked. key_enrolled: the host's own module key is in the firmware.
    devices: GPUs and NVSwitch bridges, by address.
    loaded: versions of loaded modules by name; empty where a module has none. flavour: of NVIDIA's loaded module.
    module_versions: version of the planned module's file by kernel release; kernels without one are left out.
    library_version: of NVIDIA's user-space library on disk.
    packages: versions of all that are installed, by name. held: of these.
    unsettled: packages that an interrupted run left half-installed.
    candidates: version that would be installed, by package name; packages without one are left out. None where the host
        has no package lists yet and so cannot know.
    headers: kernels whose build folder is there.
    run_file: NVIDIA's .run installer has put a driver here, which no package owns.
    free_mib: free space by mount point of /, /var and /boot.
    cloud_init: its status, empty where it is not installed.
    """

    system: str
    architecture: str
    kernel: str
    next_kernel: str = ""
    kernels: tuple[str, ...] = ()
    boot_id: str = ""
    secure_boot: bool | None = None
    key_enrolled: bool = False
    devices: tuple[PciDevice, ...] = ()
    loaded: Mapping[str, str] = {}
    flavour: Flavour | None = None
    module_versions: Mapping[str, str] = {}
    library_version: str = ""
    packages: Mapping[str, str] = {}
    held: frozenset[str] = frozenset()
    unsettled: tuple[str, ...] = ()
    candidates: Mapping[str, str] | None = None
    headers: tuple[str, ...] = ()
    run_file: bool = False
    free_mib: Mapping[str, int] = {}
    cloud_init: str = ""
