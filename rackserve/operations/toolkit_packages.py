"""NVIDIA's Container Toolkit: packages that have to be of one version."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from rackserve.facts.container_toolkit import ContainerToolkit
from rackserve.facts.simulation import Simulation, exact
from rackserve.operations import commands
from rackserve.operations.require import refusing
from rackserve.planning.driver_plan import DriverPlan
from rackserve.planning.transaction import toolkit_problems, upstream


@operation()
def toolkit_packages(plan: DriverPlan, lock_timeout: int) -> Generator[StringCommand, None, None]:
    """Have the planned packages installed, all of the planned version.

    lock_timeout: seconds to wait for another package manager.
    """
    names = list(plan.toolkit_packages)
    found = host.get_fact(ContainerToolkit, packages=names, unit=plan.toolkit_unit).versions
    if all(upstream(found.get(name, "")) == plan.toolkit_version for name in names):
        host.noop(f"{', '.join(names)} {plan.toolkit_version} installed")
        return
    pinned = dict.fromkeys(names, plan.toolkit_version or "")
    deb = plan.package_manager == "apt"
    yield (
        commands.script("refresh-deb.sh", str(lock_timeout))
        if deb
        else commands.script("refresh-rpm.sh", str(lock_timeout), "")
    )
    simulation = host.get_fact(
        Simulation, manager=plan.package_manager, names=names, globs=names, pinned=pinned, downgrade=bool(found)
    )
    problems = toolkit_problems(simulation, plan)
    if problems:
        yield from refusing(problems, "")
    elif deb:
        yield commands.script("driver-deb.sh", str(lock_timeout), "yes" if found else "no", "", "", *names)
    else:
        yield commands.script("driver-rpm.sh", str(lock_timeout), "", "", *exact(names, pinned))
