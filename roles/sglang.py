"""Install SGLang into a virtual environment of its own."""

from __future__ import annotations

from pyinfra.api import deploy

from rackserve.operations.environment import python_release
from rackserve.operations.packages import installed
from roles.llamacpp import HELPER_PACKAGES
from roles.planned import host_plan, manager, python_environment


@deploy("SGLang")
def sglang() -> None:
    """Packages it needs, then the planned version beside the one in use, where a service is to have it."""
    origin = python_environment("sglang")
    if origin is None:
        return
    packages, settings = [*HELPER_PACKAGES, *origin.packages], host_plan().host
    installed(
        name="Packages for SGLang installed",
        packages=packages,
        lock_timeout=settings.apt_lock_timeout,
        manager=manager(),
    )
    python_release(name="Release of SGLang in place", origin=origin, python_mirror=settings.python_mirror)
