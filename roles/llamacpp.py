"""Install llama.cpp's llama-server into a release folder."""

from __future__ import annotations

from pyinfra.api import deploy

from rackserve.operations.packages import installed
from rackserve.operations.release import llama_server
from rackserve.operations.repository import repositories
from rackserve.planning.driver_recipes import named_repositories
from rackserve.planning.macos import is_mac
from rackserve.planning.plans import LLAMACPP
from rackserve.planning.preflight import llamacpp_origin
from roles.planned import host_catalog, host_plan, manager, node


@deploy("llama.cpp")
def llamacpp() -> None:
    """Packages it needs, then the release that the setting `llamacpp_install` asks for."""
    plan, seen = host_plan(), node()
    origin = llamacpp_origin(plan, host_catalog(), seen)
    if not plan.serves(LLAMACPP) or is_mac(plan) or seen is None or isinstance(origin, str):
        # Without an origin preflight has refused the host, with the reason.
        return
    timeout = plan.host.apt_lock_timeout
    if origin.repositories:
        names, system, architecture = origin.repositories, seen.system, seen.architecture
        planned = named_repositories(names, system, architecture, plan.host, host_catalog())
        repositories(
            name="Package repositories for llama.cpp as planned",
            planned=planned,
            adopt=plan.host.adopt,
            lock_timeout=timeout,
        )
    installed(
        name="Packages for llama.cpp installed",
        packages=list(HELPER_PACKAGES + origin.packages),
        lock_timeout=timeout,
        manager=manager(),
    )
    llama_server(name="Release of llama-server current", origin=origin, lock_timeout=timeout, manager=manager())


# The helpers beside the unit are Python; models are fetched with curl over https.
HELPER_PACKAGES = ("ca-certificates", "curl", "python3")
