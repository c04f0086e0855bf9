"""Judge whether a host's driver can be installed, before anything on it is changed. Pure: a fact has read the GpuState.

Every verdict is one line for the operator, with what would work; all of them are told at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rackserve.catalog.loader import Catalog
from rackserve.domain.gpu_state import GpuState, PciDevice
from rackserve.domain.host import Host
from rackserve.planning.driver_load import foreseen_reboot
from rackserve.planning.driver_plan import DriverPlan
from rackserve.planning.kernel_packages import (
    kernels_to_cover,
    matches_any,
    of_the_driver,
    package_names,
)
from rackserve.planning.stack_rules import kernel_numbers, numbers
from rackserve.planning.transaction import is_of_version

# A driver, its libraries and firmware, and what DKMS compiles: NVIDIA's compute-only set unpacks to about 3 GiB.
_ROOT_MIB = 5 * 1024
_VAR_MIB = 2 * 1024
# A new initramfs is written beside the old one.
_BOOT_MIB = 300
_NVSWITCH_CLASSES = ("0680",)
# Where DKMS keeps the key that it signs modules with; Ubuntu's shim has one that its own tools use.
_KEYS = {"ubuntu": "/var/lib/shim-signed/mok/MOK.der"}
_DKMS_KEY = "/var/lib/dkms/mok.pub"


def gpu_problems(plan: DriverPlan, host: Host, state: GpuState, catalog: Catalog) -> list[str]:
    """What keeps the driver from this host."""
    return [
        *_cards(plan, state, catalog),
        *_windows(plan, state),
        *_foreign(plan, state),
        *_secure_boot(plan, host, state),
        *_kernel_range(plan, state, catalog),
        *kernel_problems(plan, state),
        *_space(plan, state),
        *_held(plan, state),
    ]


def gpu_notes(plan: DriverPlan, host: Host, state: GpuState, catalog: Catalog) -> list[str]:
    """What the operator should know, and nothing is refused for."""
    return [*_strangers(plan, state, catalog), *_changes(plan, state), *_condition(host, state)]


def _cards(plan: DriverPlan, state: GpuState, catalog: Catalog) -> Iterator[str]:
    found = [device for device in state.devices if device.id in plan.gpu_ids]
    others = [device for device in state.devices if device not in found and _tags(device, catalog)]
    if not found:
        there = ", ".join(_described(device, catalog) for device in _gpus(state)) or "no GPU"
        expected = " or ".join(plan.gpu_ids)
        yield f"gpu_tag says {plan.gpu_tag} ({expected}), the PCI bus has {there}: correct the tag"
    elif len(found) != plan.gpu_count:
        addresses = ", ".join(device.address for device in found)
        fewer = "a card is dead or gone: reseat it, or state the number that is left"
        advice = fewer if len(found) < plan.gpu_count else "state them all, an unplanned card stays idle"
        yield f"gpu_count says {plan.gpu_count}, the PCI bus has {len(found)} {plan.gpu_tag} ({addresses}): {advice}"
    for device in found:
        if not device.answers:
            yield f"GPU {device.address} does not answer on the PCI bus (it fell off): power the host off and on"
        if device.driver == "vfio-pci":
            yield (
                f"GPU {device.address} is given away to a virtual machine (vfio-pci): release it there, "
                "or leave this host out"
            )
    if found:
        for device in others:
            yield (
                f"the PCI bus also has {_described(device, catalog)} at {device.address}: a host has cards of one tag; "
                "take it out, or write a tag for it and a host of its own"
            )


def _windows(plan: DriverPlan, state: GpuState) -> Iterator[str]:
    """Intel's driver moves data through a 256 MiB keyhole where the firmware has resizable BAR off."""
    if plan.vendor != "intel":
        return
    for device in state.devices:
        if device.id in plan.gpu_ids and device.answers and device.bar_mib < plan.vram_mib:
            yield (
                f"GPU {device.address} shows {device.bar_mib} MiB of its {plan.vram_mib} MiB: switch Resizable BAR "
                "(and Above 4G Decoding) on in the firmware's set-up"
            )


def _foreign(plan: DriverPlan, state: GpuState) -> Iterator[str]:
    if state.run_file and plan.vendor == "nvidia":
        yield (
            "NVIDIA's .run installer has put a driver here that no package owns, and the two would overwrite each "
            "other: remove it with `nvidia-uninstall`, then run again"
        )
    rivals = sorted(name for name in state.packages if matches_any(name, plan.rivals) and not _wanted(plan, name))
    if rivals:
        remove = "apt-get purge" if plan.package_manager == "apt" else "dnf remove"
        yield (
            f"{', '.join(rivals)} of another driver for these cards installed: remove with "
            f"`{remove} {' '.join(rivals)}`, then run again"
        )


def _wanted(plan: DriverPlan, name: str) -> bool:
    return name in plan.packages or of_the_driver(plan, name)


def _secure_boot(plan: DriverPlan, host: Host, state: GpuState) -> Iterator[str]:
    if not state.secure_boot or not plan.built:
        return
    key = _KEYS.get(plan.system.partition("-")[0], _DKMS_KEY)
    if host.secure_boot != "mok":
        yield (
            f"Secure Boot is on and {plan.module} is built on the host by DKMS: the firmware would refuse it. Switch "
            f"Secure Boot off in the firmware's set-up, or set secure_boot = 'mok' and enrol the host's own key: "
            f"`mokutil --import {key}`, then confirm at the console during the next boot"
        )
    elif not state.key_enrolled:
        yield (
            f"Secure Boot is on and the host's own key is not enrolled: `mokutil --import {key}` (DKMS makes the key: "
            "`dkms generate_mok`), reboot, confirm at the console, then run again"
        )


def _kernel_range(plan: DriverPlan, state: GpuState, catalog: Catalog) -> Iterator[str]:
    """Kernels that AMD's module does not build for, or that do not know an Intel card yet."""
    lowest = highest = None
    if plan.vendor == "amd" and plan.branch is not None:
        series = catalog.stacks.amd_drivers[plan.branch]
        lowest, highest = series.kernel_min, series.kernel_max
    elif plan.vendor == "intel" and not plan.kernel_package:
        lowest = catalog.gpus[plan.gpu_tag].driver_min
    for kernel in kernels_to_cover(state):
        version = kernel_numbers(kernel)
        if version is None:
            continue
        if lowest is not None and version < numbers(lowest):
            yield f"{plan.module} needs Linux {lowest}, {_which(kernel, state)} is {kernel}: boot a newer one"
        if highest is not None and version[: len(numbers(highest))] > numbers(highest):
            yield (
                f"{plan.module} {plan.branch} builds for Linux up to {highest}, {_which(kernel, state)} is {kernel}: "
                "boot an older kernel, or name a newer driver_branch"
            )


def kernel_problems(plan: DriverPlan, state: GpuState) -> list[str]:
    """Kernels for which no module can be had: neither ready-made, nor headers to build one with.

    Nothing where the host has no package lists yet: it is asked again once it has.
    """
    if state.candidates is None or not (plan.built or plan.signed_module):
        return []
    return [
        f"{_which(kernel, state)} {kernel} has no {missing} in the archive, so it would have no {plan.module} module: "
        "install and boot a kernel that the distribution still carries"
        for kernel in kernels_to_cover(state)
        if (missing := _missing_for(plan, state, kernel))
    ]


def _missing_for(plan: DriverPlan, state: GpuState, kernel: str) -> str:
    available = {*(state.candidates or {}), *state.packages}
    if plan.signed_module:
        name = plan.signed_module.replace("{release}", kernel)
        return "" if name in available else name
    if kernel in state.headers:
        return ""
    names = [pattern.replace("{release}", kernel) for pattern in plan.headers if "{release}" in pattern]
    return next((name for name in names if name not in available), "")


def _which(kernel: str, state: GpuState) -> str:
    if kernel != state.kernel:
        return "the kernel of the next boot"
    return "the running kernel"


def _space(plan: DriverPlan, state: GpuState) -> Iterator[str]:
    if set(package_names(plan, state)) <= set(state.packages):
        return
    root, free = state.free_mib.get("/"), state.free_mib
    needed = {"/": _ROOT_MIB, "/var": _VAR_MIB, "/boot": _BOOT_MIB}
    for mount, mib in needed.items():
        # The same number means the same file system: df was asked in one moment.
        own = mount == "/" or free.get(mount) != root
        if own and mount in free and free[mount] < mib:
            yield f"{mount} has {free[mount]} MiB free, the driver needs {mib} MiB there: free some"


def _held(plan: DriverPlan, state: GpuState) -> Iterator[str]:
    """A held package of the wrong version would make the transaction fail half-explained."""
    names = sorted(
        name
        for name in state.held
        if name in state.packages and of_the_driver(plan, name) and not is_of_version(plan, name, state.packages[name])
    )
    if names:
        versions = ", ".join(f"{name} {state.packages[name]}" for name in names)
        yield (
            f"on hold: {versions}, planned is {plan.version}; pins do that job here: "
            f"`apt-mark unhold {' '.join(names)}`"
        )


def _strangers(plan: DriverPlan, state: GpuState, catalog: Catalog) -> Iterator[str]:
    """Cards of the same vendor that the catalogue does not know: newer than it, or for a display."""
    prefix = plan.gpu_ids[0].partition(":")[0] if plan.gpu_ids else "none"
    for device in _gpus(state):
        if device.id.startswith(prefix) and device.id not in plan.gpu_ids and not _tags(device, catalog):
            yield f"the PCI bus also has {device.id} at {device.address}, which the catalogue does not know"


def _changes(plan: DriverPlan, state: GpuState) -> Iterator[str]:
    if "nouveau" in state.loaded and plan.vendor == "nvidia":
        yield "nouveau drives these cards now: it is unloaded, or the host rebooted once where that cannot be done"
    loaded = state.loaded.get(plan.module, "")
    # AMD's module and its series are numbered apart.
    if plan.vendor == "nvidia" and loaded and plan.version is not None and loaded != plan.version:
        yield f"{plan.module} {loaded} is loaded, planned is {plan.version}: services stop while it is changed"
    if reason := foreseen_reboot(plan, state):
        yield f"it will take a reboot: {reason}"


def _condition(host: Host, state: GpuState) -> Iterator[str]:
    if state.unsettled:
        yield f"an interrupted run left {', '.join(state.unsettled)} half-installed: settled once before anything else"
    if state.cloud_init == "running":
        yield "cloud-init is still at work: waited for, for at most 10 minutes"
    elif state.cloud_init in {"error", "degraded"}:
        yield f"cloud-init ended in {state.cloud_init}: see `cloud-init status --long`"
    if host.secure_boot is not None and state.secure_boot is not None and bool(host.secure_boot) != state.secure_boot:
        yield f"secure_boot says {host.secure_boot}, the firmware has it {'on' if state.secure_boot else 'off'}"


def _gpus(state: GpuState) -> list[PciDevice]:
    return [device for device in state.devices if not device.device_class.startswith(_NVSWITCH_CLASSES)]


def _tags(device: PciDevice, catalog: Catalog) -> Sequence[str]:
    return [gpu.tag for gpu in catalog.gpus.values() if device.id in gpu.pci_ids]


def _described(device: PciDevice, catalog: Catalog) -> str:
    tags = _tags(device, catalog)
    return f"{device.id} (tag {tags[0]})" if tags else device.id
