"""Have the container images of the planned services on the host, and podman to run them."""

from __future__ import annotations

from collections.abc import Iterable

from pyinfra import host
from pyinfra.api import deploy

from rackserve.operations.images import image, podman_installed
from rackserve.planning.container_host import in_containers
from rackserve.planning.driver_recipes import package_manager
from rackserve.runtimes.launch import Container
from roles.planned import host_plan, node


@deploy("Images")
def images() -> None:
    """podman, then each image by its digest: before any service is touched, outside the time that it has to start."""
    plan, seen = host_plan(), node()
    wanted = distinct(service.launch.container for service in in_containers(plan))
    if not wanted or seen is None:
        # Preflight has refused a host that is unknown.
        return
    podman_installed(
        name="podman installed", manager=package_manager(seen.system), lock_timeout=plan.host.apt_lock_timeout
    )
    for container in host.loop(wanted):
        image(
            name="Image in place",
            image_name=container.image,
            disk_gib=container.disk_gib,
            wanted=[entry.image for entry in wanted],
        )


def distinct(containers: Iterable[Container | None]) -> list[Container]:
    """One for each image."""
    return list({entry.image: entry for entry in containers if entry is not None}.values())
