"""Let the GPU of an Apple machine use as much memory as the planner counts on."""

from __future__ import annotations

from pyinfra.api import deploy

from rackserve.operations.apple_memory import wired_limit
from rackserve.planning.node_driver import wired_limit_mib
from rackserve.rendering.drivers import MEMORY_DAEMON, MEMORY_PLIST, memory_plist
from roles.planned import host_plan, node


@deploy("Apple GPU memory")
def apple_memory() -> None:
    """The limit set now, and again at every start of the machine."""
    planned, seen = host_plan(services=False), node()
    limit_mib = wired_limit_mib(planned.host, planned.gpu, seen) if seen is not None else None
    if limit_mib is None:
        return
    wired_limit(
        name="Wired memory limit as planned",
        limit_mib=limit_mib,
        label=MEMORY_DAEMON,
        path=MEMORY_PLIST,
        text=memory_plist(limit_mib),
    )
