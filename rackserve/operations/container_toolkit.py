"""NVIDIA's GPUs in containers: through CDI, which survives `systemctl daemon-reload` where the older hook does not."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from rackserve.facts.container_toolkit import ContainerToolkit, ToolkitState
from rackserve.operations import commands
from rackserve.planning.driver_plan import DriverPlan


@operation()
def cdi_specification(plan: DriverPlan) -> Generator[StringCommand, None, None]:
    """Have a specification that names all GPUs, kept fresh by the toolkit's own unit at boots and driver changes."""
    state = _state(plan)
    # One name for each GPU by number, one by UUID, and `all`.
    if state.refreshing and not state.stale and len(state.devices) > plan.gpu_count:
        host.noop(f"{len(state.devices)} CDI devices")
        return
    yield commands.script("cdi.sh", plan.toolkit_unit, str(plan.gpu_count))


@operation()
def engine_configured(plan: DriverPlan, engine: str) -> Generator[StringCommand, None, None]:
    """Have an engine of the operator's own give GPUs to containers. It is restarted only if its settings changed."""
    state = _state(plan)
    if engine in state.configured:
        host.noop(f"{engine} knows of the GPUs")
        return
    if engine not in state.installed:
        message = f"container_engines names {engine}, which is not installed: install it, or leave it out"
        yield commands.refuse(message)
        return
    yield commands.script("container-engine.sh", engine)


def _state(plan: DriverPlan) -> ToolkitState:
    return host.get_fact(ContainerToolkit, packages=list(plan.toolkit_packages), unit=plan.toolkit_unit)
