"""Hosts that run services from container images: what they need for it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from rackserve.catalog.loader import Catalog
from rackserve.planning.plans import GpuServicePlan, HostPlan
from rackserve.planning.stack_rules import numbers

# podman, what it starts containers with (Debian's would take runc as well), and what the programs beside units run in.
COMMANDS = ("crun", "podman", "python3")
PACKAGES = ("ca-certificates", *COMMANDS)
# Quadlet, which makes units of containers, is there since 4.4; ShmSize= and PidsLimit= since 4.7: an older one makes no
# unit at all of a file with a key that it does not know. Source: pkg/systemd/quadlet/quadlet.go of podman, by tag.
LEAST_PODMAN = "4.7"


def in_containers(plan: HostPlan) -> list[GpuServicePlan]:
    """Services that are run from images."""
    return [service for service in plan.gpu_services if service.launch.container is not None]


def podman_problems(plan: HostPlan, catalog: Catalog, system: str) -> Iterator[str]:
    """What keeps containers from a host with this system, one sentence."""
    services = in_containers(plan)
    found = catalog.podman.get(system)
    if not services or (found is not None and _new_enough(found.version)):
        return
    what = ", ".join(f"{service.name} ({service.runtime_name} {service.runtime.version})" for service in services)
    there = f"{system} ships podman {found.version}" if found is not None else f"no podman of {system} is known"
    good = ", ".join(entry.system for entry in catalog.podman.values() if _new_enough(entry.version))
    yield (
        f"{what} is run from a container image, for which podman {LEAST_PODMAN} is needed, and {there}: "
        f"use a host with {good}, or another runtime"
    )


def _new_enough(version: str) -> bool:
    return numbers(version) >= numbers(LEAST_PODMAN)
