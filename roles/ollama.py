"""Install Ollama into a release folder."""

from __future__ import annotations

from pyinfra.api import deploy

from rackserve.domain.archives import ArchiveRuntime
from rackserve.operations.packages import installed
from rackserve.operations.release import archive_release
from rackserve.planning.preflight import archive_origin
from rackserve.runtimes.archives import ArchiveRelease
from roles.llamacpp import HELPER_PACKAGES
from roles.planned import host_catalog, host_plan, manager, node


@deploy("Ollama")
def ollama() -> None:
    """Packages it needs, then the planned release, where a service is to have it."""
    release = planned_release("ollama")
    if release is None:
        return
    packages, timeout = [*HELPER_PACKAGES, *release.packages], host_plan().host.apt_lock_timeout
    installed(name="Packages for Ollama installed", packages=packages, lock_timeout=timeout, manager=manager())
    archive_release(name="Release of Ollama current", release=release)


def planned_release(runtime: ArchiveRuntime) -> ArchiveRelease | None:
    """Of the current host; None where no service has the runtime, or preflight has refused the host."""
    seen = node()
    found = archive_origin(host_plan(), host_catalog(), seen, runtime) if seen is not None else None
    return found if isinstance(found, ArchiveRelease) else None
