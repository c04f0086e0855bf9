"""Check that a host is what the inventory says before anything on it is changed."""

from __future__ import annotations

from pyinfra.api import deploy

from rackserve.operations.require import require, undisturbed
from rackserve.planning.macos import is_mac
from rackserve.planning.preflight import host_problems
from roles.planned import host_catalog, host_plan, node


@deploy("Preflight")
def preflight() -> None:
    """Refuse a host whose GPUs, memory or system differ from its tag; other hosts go on."""
    plan = host_plan()
    require(
        name="Host is what its tag says",
        problems=host_problems(plan, host_catalog(), node()),
    )
    if plan.gpu_services and not is_mac(plan):
        undisturbed(name="Ports and GPUs not held by Ollama's own unit", plan=plan)
