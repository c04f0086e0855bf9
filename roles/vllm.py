"""Install vLLM into a virtual environment of its own."""

from __future__ import annotations

from pyinfra.api import deploy

from rackserve.operations.environment import python_release
from rackserve.operations.packages import installed
from roles.llamacpp import HELPER_PACKAGES
from roles.planned import host_plan, manager, python_environment


@deploy("vLLM")
def vllm() -> None:
    """Packages it needs, then the planned version beside the one in use, where a service is to have it."""
    origin = python_environment("vllm")
    if origin is None:
        return
    packages, settings = [*HELPER_PACKAGES, *origin.packages], host_plan().host
    installed(
        name="Packages for vLLM installed", packages=packages, lock_timeout=settings.apt_lock_timeout, manager=manager()
    )
    python_release(name="Release of vLLM in place", origin=origin, python_mirror=settings.python_mirror)
