"""The driver plan of a host that has told what it runs: the stack is solved for that, whatever the inventory states."""

from __future__ import annotations

from rackserve.catalog.loader import Catalog
from rackserve.domain.errors import Problem
from rackserve.domain.gpu import Gpu
from rackserve.domain.host import Host
from rackserve.domain.node import Node
from rackserve.planning.driver_plan import DriverPlan, plan_driver
from rackserve.planning.fit import in_memory
from rackserve.planning.host_stack import asked_runtimes, stack_request
from rackserve.planning.stack import Stack, solve

_NO_GPU = "cpu"
# What macOS keeps for itself at least, in MiB and as a share: below it the system swaps and Metal fails allocations.
# Source: public notes on iogpu.wired_limit_mb.
_MACOS_MIB = 4096
_MACOS_SHARE = 0.15


def driver_for(host: Host, gpu: Gpu, node: Node, catalog: Catalog) -> DriverPlan | tuple[Problem, ...]:
    """The plan, or every reason why this system cannot carry what the inventory asks of it."""
    cards, runtimes = (gpu,) * host.gpu_count, asked_runtimes(host.services, gpu, catalog)
    if in_memory(host, gpu):
        # No GPU, or a pretended one: there is nothing to drive.
        gpu, cards, runtimes = catalog.gpus[_NO_GPU], (), ()
    solved = solve(stack_request(host, cards, runtimes, node.system), catalog)
    return plan_driver(host, gpu, solved, node.architecture, catalog) if isinstance(solved, Stack) else solved


def wired_limit_mib(host: Host, gpu: Gpu, node: Node) -> int | None:
    """What the GPU of an Apple machine may wire down, in MiB; None for other hosts.

    It is what the planner counts on (`unified_share`). macOS's own default is that much on large machines only, about
    two thirds on small ones.
    """
    if gpu.vendor != "apple":
        return None
    memory = min(node.memory_mib, host.memory_mib or node.memory_mib)
    return min(int(memory * gpu.unified_share), memory - max(_MACOS_MIB, int(memory * _MACOS_SHARE)))
