"""Look at a host's GPUs and driver before anything is changed, and refuse it for all that stands against its plan."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from pyinfra import host, logger, state
from pyinfra.api import StringCommand, operation
from pyinfra.api.state import StateStage

from rackserve.catalog.loader import Catalog
from rackserve.domain.host import Host
from rackserve.facts.gpu_host import GpuHost
from rackserve.operations.repository import look, refusals
from rackserve.operations.require import refusing
from rackserve.planning.driver_plan import DriverPlan
from rackserve.planning.gpu_preflight import gpu_notes, gpu_problems
from rackserve.planning.kernel_packages import asked_for


@operation()
def as_required(
    known: Sequence[str], plan: DriverPlan | None, settings: Host, catalog: Catalog
) -> Generator[StringCommand, None, None]:
    """Fail unless the host is what its plan needs. known: what is wrong already, before anybody looked at the host."""
    problems = list(known)
    if plan is not None and plan.installs:
        found = host.get_fact(GpuHost, module=plan.module, ask=asked_for(plan))
        problems += gpu_problems(plan, settings, found, catalog)
        if plan.repositories:
            problems += refusals(plan.repositories, look(plan.repositories), adopt=settings.adopt)
        if state.current_stage == StateStage.Prepare:
            logger.info(f"{host.print_prefix}planned: {plan.summary}")
            for note in gpu_notes(plan, settings, found, catalog):
                logger.warning(f"{host.print_prefix}{note}")
    yield from refusing(problems, "GPUs and driver as the plan needs them")
