"""Container images of runtimes, by digest, and the podman that runs them."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from pyinfra import host
from pyinfra.api import StringCommand, operation

from rackserve.facts.podman import OWN_IMAGES, Podman
from rackserve.operations import commands
from rackserve.operations.current import WORK
from rackserve.planning.container_host import COMMANDS, PACKAGES
from rackserve.planning.driver_recipes import PackageManager

# The newest images that stay for a way back.
KEEP = 3


@operation()
def podman_installed(manager: PackageManager, lock_timeout: int) -> Generator[StringCommand, None, None]:
    """Have podman, and what it starts containers with.

    lock_timeout: seconds to wait for another package manager.
    """
    if host.get_fact(Podman, commands=list(COMMANDS), images=[]).commands.issuperset(COMMANDS):
        host.noop(f"{', '.join(COMMANDS)} installed")
        return
    if manager == "apt":
        yield commands.script("packages.sh", str(lock_timeout), *PACKAGES)
    else:
        yield commands.script("refresh-rpm.sh", str(lock_timeout), "", *PACKAGES)


@operation()
def image(image_name: str, disk_gib: int, wanted: Sequence[str]) -> Generator[StringCommand, None, None]:
    """Have the image of this name and digest in podman's store; what is there already is not looked for anywhere.

    disk_gib: room that it takes, 0 where that is not known. wanted: all images of the host's services. Of those that
    were pulled here before, the newest stay.
    """
    if image_name in host.get_fact(Podman, commands=[], images=[image_name]).images:
        host.noop(f"{image_name} is there")
        return
    yield commands.script("image.sh", OWN_IMAGES, image_name, str(disk_gib), str(KEEP), WORK, *wanted)


@operation()
def images_gone() -> Generator[StringCommand, None, None]:
    """Have none of the images that rackserve has pulled."""
    own = host.get_fact(Podman, commands=[], images=[]).own
    if not own:
        host.noop("no images of rackserve's")
        return
    yield commands.script("images-gone.sh", OWN_IMAGES)
