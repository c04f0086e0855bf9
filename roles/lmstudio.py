"""Install LM Studio's server into a release folder."""

from __future__ import annotations

from pyinfra.api import deploy

from rackserve.operations.packages import installed
from rackserve.operations.release import archive_release
from roles.llamacpp import HELPER_PACKAGES
from roles.ollama import planned_release
from roles.planned import host_plan, manager


@deploy("LM Studio")
def lmstudio() -> None:
    """Packages it needs, then the planned release, where a service is to have it."""
    release = planned_release("lmstudio")
    if release is None:
        return
    packages, timeout = [*HELPER_PACKAGES, *release.packages], host_plan().host.apt_lock_timeout
    installed(name="Packages for LM Studio installed", packages=packages, lock_timeout=timeout, manager=manager())
    archive_release(name="Release of LM Studio current", release=release)
