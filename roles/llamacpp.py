"""Install llama.cpp's llama-server into a release folder."""

from __future__ import annotations

from pyinfra.api import deploy

from rackserve.operations.packages import installed
from rackserve.operations.release import llama_server
from rackserve.planning.preflight import llamacpp_origin
from roles.planned import host_catalog, host_plan, node


@deploy("llama.cpp")
def llamacpp() -> None:
    """Packages it needs, then the release that the setting `llamacpp_install` asks for."""
    plan = host_plan()
    origin = llamacpp_origin(plan, host_catalog(), node())
    if not plan.services or isinstance(origin, str):
        # Without an origin preflight has refused the host, with the reason.
        return
    timeout = plan.host.apt_lock_timeout
    installed(
        name="Packages for llama.cpp installed", packages=list(HELPER_PACKAGES + origin.packages), lock_timeout=timeout
    )
    llama_server(name="Release of llama-server current", origin=origin, lock_timeout=timeout)


# The helpers beside the unit are Python; models are fetched with curl over https.
HELPER_PACKAGES = ("ca-certificates", "curl", "python3")
