"""Who keeps what it compiles by release or by image only, so that what else is in its cache folder has no reader."""

from __future__ import annotations

from rackserve.planning.plans import AnyServicePlan
from rackserve.rendering.units import launcher
from rackserve.runtimes.launch import CURRENT, Launch


def kept_apart(plan: AnyServicePlan) -> str | None:
    """The service's cache folder; None where something of it writes beside the folders of releases and images."""
    launches = [launch for launch in (plan.launch, plan.launch.companion) if launch is not None]
    if plan.launch.container is None and not all(_led(launch) for launch in launches):
        return None
    return f"/var/cache/rackserve/{plan.name}"


def _led(launch: Launch) -> bool:
    """Whether all that it runs is a program of a release and started by `launch`, which leads it to that release's."""
    around = launch.before or launch.after
    return bool(launcher(launch)) and launch.argv[0].startswith(f"{CURRENT}/") and not around
