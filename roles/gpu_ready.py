"""Refuse a host whose GPUs are not driven as planned, before anything is installed for its services."""

from __future__ import annotations

from pyinfra.api import deploy

from rackserve.operations.driver_load import driver_as_planned
from rackserve.planning.driver_plan import DriverPlan
from roles.planned import driver_plan, host_plan


@deploy("GPUs")
def gpu_ready() -> None:
    """Nothing on hosts without services on GPUs, and on those whose driver is part of the operating system."""
    if not any(service.gpus for service in host_plan().gpu_services):
        return
    plan = driver_plan()
    if isinstance(plan, DriverPlan) and plan.installs:
        driver_as_planned(name="GPUs ready for services", plan=plan)
