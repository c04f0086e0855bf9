"""Let containers use NVIDIA's GPUs, where a planned runtime or the operator's own engine needs it."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from rackserve.operations.container_toolkit import cdi_specification, engine_configured
from rackserve.operations.files import text_files
from rackserve.operations.toolkit_packages import toolkit_packages
from rackserve.planning.driver_plan import DriverPlan
from rackserve.rendering.drivers import toolkit_files
from roles.planned import driver_plan, host_plan


@deploy("Container Toolkit")
def container_toolkit() -> None:
    """The toolkit's packages, all of one version, a fresh CDI specification, and the operator's own engines."""
    plan, settings = driver_plan(), host_plan(services=False).host
    if not isinstance(plan, DriverPlan) or not plan.toolkit_packages:
        return
    toolkit_packages(name="Container Toolkit installed", plan=plan, lock_timeout=settings.apt_lock_timeout)
    text_files(name="Container Toolkit settings as planned", files=toolkit_files(plan))
    cdi_specification(name="CDI specification fresh", plan=plan)
    for engine in host.loop(list(settings.container_engines)):
        engine_configured(name="Container engine gives out GPUs", plan=plan, engine=engine)
