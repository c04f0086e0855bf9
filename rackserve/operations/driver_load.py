"""The installed driver, loaded and shown to work: without a reboot where possible, else with one."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host, logger
from pyinfra import state as run
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.state import StateStage

from rackserve.domain.gpu_state import GpuState
from rackserve.facts.driver_load import Ready, RebootOwed
from rackserve.facts.gpu_host import GpuHost
from rackserve.operations import commands
from rackserve.operations.driver_packages import MARKER
from rackserve.operations.reboot import rebooted
from rackserve.operations.require import refusing
from rackserve.planning.driver_load import kernel_owed, may_be_unloaded, not_loaded
from rackserve.planning.driver_plan import DriverPlan
from rackserve.planning.kernel_packages import asked_for
from rackserve.rendering.drivers import GPU_READY

REBOOT_OWED = "/var/lib/rackserve/driver-reboot"


@operation()
def driver_loaded(
    plan: DriverPlan, allow_reboot: bool, reboot_timeout: int
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Have the installed modules loaded, and those of another driver gone.

    A reboot happens at most once for a plan, and only with allow_reboot; it is waited for `reboot_timeout` seconds.
    """
    state = _state(plan)
    if not not_loaded(plan, state):
        host.noop(f"{', '.join(plan.modules)} loaded")
        return
    yield _load(plan, state)
    reason = host.get_fact(RebootOwed, path=REBOOT_OWED)
    if not reason:
        return
    if not allow_reboot:
        yield commands.refuse(
            f"the driver takes a reboot: {reason}; reboot the host, or set allow_reboot, and run again"
        )
        return
    yield from rebooted(reason, reboot_timeout)
    state = _state(plan)
    if not_loaded(plan, state):
        # The second time it says what is wrong instead of asking for another reboot.
        yield _load(plan, state)


@operation()
def driver_verified(plan: DriverPlan) -> Generator[StringCommand, None, None]:
    """Have every GPU shown to work by gpu-ready, its units running, and that written down last of all."""
    units = ["gpu-ready.service", *plan.units]
    state = host.get_fact(Ready, units=units, marker=MARKER, program=GPU_READY)
    if state.confirms(plan.digest):
        host.noop(f"{len(state.uuids)} GPUs ready")
        return
    yield commands.script("verify-driver.sh", plan.digest, " ".join(plan.units))
    if run.current_stage == StateStage.Execute:
        loaded = _state(plan).loaded.get(plan.module)
        logger.info(
            f"{host.print_prefix}ready: {plan.gpu_count} x {plan.gpu_tag}, {plan.module} {loaded or ''}".rstrip()
        )


@operation()
def driver_as_planned(plan: DriverPlan) -> Generator[StringCommand, None, None]:
    """Fail unless the driver is the planned one and was shown to work: services are not what brings one."""
    state = host.get_fact(Ready, units=["gpu-ready.service", *plan.units], marker=MARKER, program=GPU_READY)
    problems = []
    if not state.confirms(plan.digest):
        told = "; ".join(state.problems or ()) or "no run has shown them to work with the planned driver"
        problems.append(f"the GPUs are not ready: {told}; run deploys/drivers.py first, or deploys/site.py for both")
    yield from refusing(problems, f"{len(state.uuids)} GPUs ready")


def _load(plan: DriverPlan, state: GpuState) -> StringCommand:
    return commands.script(
        "load-driver.sh",
        plan.digest,
        " ".join(plan.modules),
        plan.flavour or "",
        "yes" if plan.built else "no",
        "yes" if may_be_unloaded(plan) else "no",
        " ".join(plan.units),
        kernel_owed(plan, state),
    )


def _state(plan: DriverPlan) -> GpuState:
    return host.get_fact(GpuHost, module=plan.module, ask=asked_for(plan))
