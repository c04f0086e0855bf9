"""Take rackserve's services off a Mac again."""

from __future__ import annotations

from pyinfra.api import deploy

from rackserve.operations.macos import mac_absent, only_daemons
from rackserve.rendering.launchd import LIBEXEC, LOGS, STATE
from roles.planned import node

# Models stay: they are data, and the largest download of all.
OWN_PATHS = (LIBEXEC, LOGS, "/var/run/rackserve", "/opt/rackserve", "/etc/rackserve", STATE)


@deploy("Mac uninstall")
def mac_uninstall() -> None:
    """Stop and remove every service, its account and its key, then all other files. Nothing on other systems."""
    seen = node()
    if seen is None or seen.distribution != "macos":
        return
    only_daemons(name="Services gone", names=[])
    mac_absent(name="Releases, logs and helpers gone", paths=list(OWN_PATHS))
