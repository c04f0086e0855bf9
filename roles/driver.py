"""Have the planned driver installed, loaded and checked, whosever GPU it is."""

from __future__ import annotations

from pyinfra.api import deploy

from rackserve.operations.driver_load import driver_loaded, driver_verified
from rackserve.operations.driver_packages import driver_packages
from rackserve.operations.files import text_files
from rackserve.operations.repository import repositories
from rackserve.planning.driver_plan import DriverPlan
from rackserve.rendering.drivers import driver_files, pin_files
from roles.planned import driver_plan, host_plan


@deploy("Driver")
def driver() -> None:
    """Repositories, pins, packages, modules: in this order, because each rests on the one before."""
    plan, settings = driver_plan(), host_plan(services=False).host
    if not isinstance(plan, DriverPlan) or not plan.installs:
        # Without a plan preflight has refused the host, with the reasons.
        return
    repositories(
        name="Package repositories as planned",
        planned=plan.repositories,
        adopt=settings.adopt,
        lock_timeout=settings.apt_lock_timeout,
    )
    text_files(name="Pins and guards against upgrades as planned", files=pin_files(plan))
    driver_packages(name="Driver packages installed", plan=plan, lock_timeout=settings.apt_lock_timeout)
    text_files(name="Modules and checks as planned", files=driver_files(plan))
    driver_loaded(
        name="Driver loaded",
        plan=plan,
        allow_reboot=settings.allow_reboot,
        reboot_timeout=settings.reboot_timeout,
    )
    driver_verified(name="GPUs ready", plan=plan)
