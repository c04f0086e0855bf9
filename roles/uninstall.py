"""Take rackserve off a host again."""

from __future__ import annotations

import posixpath

from pyinfra import host
from pyinfra.api import deploy

from rackserve.operations.images import images_gone
from rackserve.operations.service import only
from rackserve.operations.uninstall import absent, memory_limit_gone, own_packages_gone
from rackserve.rendering.compile_checks import CHECK_BASE_UNIT
from rackserve.rendering.drivers import (
    CDI_DROP_IN,
    GPU_DROP_IN,
    GPU_READY_UNIT,
    MEMORY_DAEMON,
    MEMORY_PLIST,
    MODPROBE,
    MODULES_LOAD,
    PREFERENCES,
    UNATTENDED,
)
from rackserve.rendering.repositories import KEY_FILES, REPOSITORY_FILES
from rackserve.rendering.text import LIBEXEC
from rackserve.rendering.units import BASE_UNIT, HEALTH_TIMER, HEALTH_UNIT

# Models stay: they are data, and the largest download of all.
OWN_PATHS = (
    *REPOSITORY_FILES,
    *KEY_FILES,
    PREFERENCES,
    UNATTENDED,
    MODPROBE,
    MODULES_LOAD,
    GPU_READY_UNIT,
    posixpath.dirname(GPU_DROP_IN),
    CDI_DROP_IN,
    BASE_UNIT,
    CHECK_BASE_UNIT,
    HEALTH_UNIT,
    HEALTH_TIMER,
    LIBEXEC,
    "/opt/rackserve",
    "/etc/rackserve",
    "/var/cache/rackserve",
    "/dev/rackserve",
    "/run/rackserve",
    "/run/rackserve-health",
    "/run/rackserve-packages*",
    "/run/rackserve-dkms.log",
    "/run/rackserve-initramfs.log",
    # Last: with the list of packages in it, a run that broke off is simply run again.
    "/var/lib/rackserve",
)
_LOCK_TIMEOUT_S = 600


@deploy("Uninstall")
def uninstall() -> None:
    """Stop and remove every service, its user and its key, the packages that came with them, then all other files."""
    only(name="Services gone", names=[])
    images_gone(name="Container images of rackserve's gone")
    own_packages_gone(
        name="Packages of rackserve's gone", lock_timeout=int(host.data.get("apt_lock_timeout", _LOCK_TIMEOUT_S))
    )
    memory_limit_gone(name="Memory limit of rackserve's gone", label=MEMORY_DAEMON, path=MEMORY_PLIST)
    absent(name="Repositories, units, releases and helpers gone", paths=list(OWN_PATHS))
