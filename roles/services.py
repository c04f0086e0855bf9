"""Users, keys and units of the planned services, and the services running."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import server

from rackserve.operations.files import text_files
from rackserve.operations.secret import api_key
from rackserve.operations.service import only, serving
from rackserve.rendering import host_files, key_path, unit_digest
from rackserve.runtimes import llamacpp
from roles.planned import host_plan

# Seconds that systemd's own limits come after the unit's start timeout, so that the unit's message is what is shown.
_START_GRACE_S = 120


@deploy("Services")
def services() -> None:
    """Exactly the planned services, each answering completions with the plan that is on disk."""
    plan = host_plan()
    only(name="Services that are not planned gone", names=[service.name for service in plan.services])
    for service in host.loop(list(plan.services)):
        server.user(  # noqa: S604 (its `shell` is the login shell)
            name="Service user present",
            user=service.user,
            system=True,
            home=f"/var/lib/rackserve/{service.name}",
            shell="/usr/sbin/nologin",
            ensure_home=False,
        )
        api_key(
            name="API key in place",
            path=key_path(service),
            source=service.service.api_key_file,
        )
    text_files(name="Units and helpers as planned", files=host_files(plan))
    for service in host.loop(list(plan.services)):
        serving(
            name="Service serving its plan",
            unit=service.unit,
            digest=unit_digest(service),
            program=llamacpp.PROGRAM,
            key_file=key_path(service),
            timeout=service.start_timeout + _START_GRACE_S,
        )
