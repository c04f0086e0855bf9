"""Check a host's GPUs, and whether its driver can be installed, before anything on it is changed."""

from __future__ import annotations

from pyinfra.api import deploy

from rackserve.operations.gpu_host import as_required
from rackserve.planning.driver_plan import DriverPlan
from rackserve.planning.preflight import gpu_host_problems
from roles.planned import driver_plan, host_catalog, host_plan, node


@deploy("GPU preflight")
def gpu_preflight() -> None:
    """Refuse a host with all that stands against its plan, told at once; other hosts go on."""
    planned, found = host_plan(services=False), driver_plan()
    solved = isinstance(found, DriverPlan)
    unsolved = [] if isinstance(found, DriverPlan) else [str(problem) for problem in found]
    as_required(
        name="Host is what its GPU tag and driver need",
        known=[*unsolved, *gpu_host_problems(planned, host_catalog(), node(), solved=solved)],
        plan=found if isinstance(found, DriverPlan) else None,
        settings=planned.host,
        catalog=host_catalog(),
    )
