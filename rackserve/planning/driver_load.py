"""Whether the driver that is loaded is the one that is installed and planned. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from rackserve.domain.gpu_state import GpuState
from rackserve.planning.driver_plan import DriverPlan
from rackserve.planning.kernel_packages import of_the_driver

# NVIDIA's own images for clusters take its modules out of running systems. A loaded amdgpu holds the console and is not
# known to come back; xe and i915 are part of the kernel.
_UNLOADED = {"nvidia"}


def may_be_unloaded(plan: DriverPlan) -> bool:
    """Whether a loaded module of this vendor is taken out of a running system."""
    return plan.vendor in _UNLOADED


def not_loaded(plan: DriverPlan, state: GpuState) -> tuple[str, ...]:
    """Why the driver is not loaded as it is to be, nothing where it is."""
    return tuple(_reasons(plan, state))


def _reasons(plan: DriverPlan, state: GpuState) -> Iterator[str]:
    for module in plan.modules:
        if module not in state.loaded:
            yield f"{module} is not loaded"
    loaded, installed = state.loaded.get(plan.module), state.module_versions.get(state.kernel, "")
    if loaded is not None and installed and loaded != installed:
        yield f"{plan.module} {loaded or 'of the kernel itself'} is loaded, {installed} is installed"
    elif loaded is not None and _comes_with_packages(plan, state, loaded):
        yield f"{plan.module} {loaded or 'of the kernel itself'} is loaded, the planned one is not installed yet"
    if plan.flavour is not None and state.flavour not in {None, plan.flavour}:
        yield f"the {state.flavour} {plan.module} is loaded, the {plan.flavour} one is planned"
    for device in state.devices:
        if device.id in plan.gpu_ids and device.driver not in {"", *plan.modules}:
            yield f"{device.driver} drives GPU {device.address}"
    if reason := kernel_owed(plan, state):
        yield reason


def kernel_owed(plan: DriverPlan, state: GpuState) -> str:
    """Why the installed kernel has to be booted, empty where it has not: older ones have the module, not the card."""
    if not plan.kernel_package or state.next_kernel in {"", state.kernel}:
        return ""
    loose = [device.address for device in state.devices if device.id in plan.gpu_ids and not device.driver]
    cards = ", ".join(loose)
    return f"Linux {state.kernel} does not drive GPU {cards}, {state.next_kernel} is installed" if loose else ""


def _comes_with_packages(plan: DriverPlan, state: GpuState, loaded: str) -> bool:
    """Whether packages that are still to be installed will bring another module than the loaded one."""
    if not plan.built and not plan.signed_module:
        return False
    brought = [name for name in plan.packages if of_the_driver(plan, name)]
    if not set(brought) <= set(state.packages):
        return True
    return plan.vendor == "nvidia" and plan.version is not None and loaded != plan.version


def foreseen_reboot(plan: DriverPlan, state: GpuState) -> str:
    """Why changing the driver will take a reboot, as far as that can be told before it is installed; empty for none."""
    if plan.kernel_package and plan.kernel_package not in state.packages:
        return f"{plan.kernel_package} brings a kernel that has to be booted"
    loaded = state.loaded.get(plan.module)
    if loaded is None or may_be_unloaded(plan):
        return ""
    version = state.module_versions.get(state.kernel, "")
    if _comes_with_packages(plan, state, loaded) or (version and loaded != version):
        return f"{plan.module} {loaded or 'of the kernel itself'} is loaded and is not taken out of a running system"
    return ""
