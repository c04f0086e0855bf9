"""Read back from a host, with testinfra, that its GPUs are driven as planned."""

from __future__ import annotations

import json
from collections.abc import Iterator

from testinfra.host import Host as TestinfraHost

from rackserve.catalog.loader import load_catalog
from rackserve.checks.findings import Finding
from rackserve.domain.node import Node
from rackserve.planning.driver_plan import DriverPlan
from rackserve.planning.node_driver import driver_for
from rackserve.planning.plans import HostPlan
from rackserve.rendering.drivers import GPU_READY


def driver_of(host: TestinfraHost, plan: HostPlan) -> DriverPlan | None:
    """The driver plan for the system that the host really runs; None where there is nothing to drive."""
    system = host.system_info
    node = Node(
        distribution=system.distribution or "",
        codename=system.codename or "",
        version=system.release or "",
        architecture=system.arch or "",
        glibc="0",
        memory_mib=0,
        systemd=True,
        cpu_flags=frozenset(),
        pci_gpus=(),
    )
    found = driver_for(plan.host, plan.gpu, node, load_catalog(plan.host.catalog))
    return found if isinstance(found, DriverPlan) and found.modules else None


def check_driver(host: TestinfraHost, plan: DriverPlan) -> Iterator[Finding]:
    """What gpu-ready, the program that guards every start of a service, has to say right now."""
    enabled = host.run("systemctl is-enabled gpu-ready.service").stdout.strip()
    yield Finding("gpu-ready.service enabled", ok=enabled == "enabled", expected="enabled", found=enabled or "missing")
    done = host.run(f"{GPU_READY} --check --json")
    try:
        answer = json.loads(done.stdout)
        problems, cards = answer["problems"], len(answer["gpus"])
    except (ValueError, KeyError, TypeError):
        problems, cards = [(done.stderr or done.stdout).strip()[-300:] or "no answer"], 0
    yield Finding("GPUs ready", ok=not problems, expected="ready", found="; ".join(problems) or "ready")
    counted = f"{plan.gpu_count} x {plan.gpu_tag}"
    yield Finding("GPUs as tagged", ok=cards == plan.gpu_count, expected=counted, found=f"{cards} cards")
