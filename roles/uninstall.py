"""Take rackserve off a host again."""

from __future__ import annotations

from pyinfra.api import deploy

from rackserve.operations.service import absent, only
from rackserve.rendering import BASE_UNIT, LIBEXEC

# Models stay: they are data, and the largest download of all. Distribution packages stay too: others may use them.
OWN_PATHS = (
    BASE_UNIT,
    LIBEXEC,
    "/opt/rackserve",
    "/etc/rackserve",
    "/var/cache/rackserve",
    "/var/lib/rackserve",
    "/run/rackserve-packages.log",
)


@deploy("Uninstall")
def uninstall() -> None:
    """Stop and remove every service, its user and its key, then releases, units and helpers."""
    only(name="Services gone", names=[])
    absent(name="Releases, units and helpers gone", paths=list(OWN_PATHS))
