"""The driver's packages, of one version, by a transaction that was simulated and judged first."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence

from pyinfra import host, logger
from pyinfra import state as run
from pyinfra.api import StringCommand, operation
from pyinfra.api.state import StateStage

from rackserve.domain.gpu_state import GpuState
from rackserve.facts.gpu_host import GpuHost
from rackserve.facts.lines import Lines
from rackserve.facts.simulation import Simulation, exact
from rackserve.facts.version_locks import VersionLocks
from rackserve.operations import commands
from rackserve.operations.require import refusing
from rackserve.planning.driver_plan import DriverPlan
from rackserve.planning.gpu_preflight import kernel_problems
from rackserve.planning.kernel_packages import asked_for, of_the_driver, package_names
from rackserve.planning.transaction import (
    SimulatedTransaction,
    has_stated_version,
    is_of_version,
    transaction_problems,
    upstream,
)

MARKER = "/var/lib/rackserve/driver.json"
# Written by the scripts of transactions.
WAY_BACK = "/var/lib/rackserve/driver-way-back"


@operation()
def driver_packages(plan: DriverPlan, lock_timeout: int) -> Generator[StringCommand, None, None]:
    """Have the driver's packages installed, of the planned version where one is stated, and nothing left half done.

    Where that is so already the network is not touched. lock_timeout: seconds to wait for another package manager.
    """
    if not plan.installs:
        host.noop("no driver packages planned")
        return
    state = _state(plan)
    names = package_names(plan, state)
    if is_installed(plan, names, state) and _is_locked(plan, state):
        host.noop(f"{', '.join(names)} installed")
        return
    yield _refresh(plan, lock_timeout)
    # An interrupted installation has been settled meanwhile, which may have brought packages.
    state = _state(plan)
    names = package_names(plan, state)
    pinned = _pinned(plan, names)
    simulation = host.get_fact(
        Simulation,
        manager=plan.package_manager,
        names=list(names),
        globs=list(plan.together),
        pinned=pinned,
        downgrade=_goes_down(plan, state),
    )
    # The package lists may be there for the first time.
    problems = [*kernel_problems(plan, state), *transaction_problems(simulation, plan, state.free_mib)]
    if problems:
        yield from refusing(problems, "")
        return
    # First to go and last to come back: it says that all of the driver is as planned.
    yield StringCommand("rm", "-f", MARKER)
    yield _transaction(plan, names, simulation, lock_timeout, downgrade=_goes_down(plan, state))
    if any(of_the_driver(plan, name) for name in simulation.replaced) and run.current_stage == StateStage.Execute:
        told = host.get_fact(Lines, path=WAY_BACK)
        logger.info(f"{host.print_prefix}way back: {' '.join(told)}")


def is_installed(plan: DriverPlan, names: Iterable[str], state: GpuState) -> bool:
    """Whether all packages are there, those of the driver in its version, and none half-installed."""
    wrong = (name for name, version in state.packages.items() if not is_of_version(plan, name, version))
    return not state.unsettled and set(names) <= set(state.packages) and next(wrong, None) is None


def _state(plan: DriverPlan) -> GpuState:
    return host.get_fact(GpuHost, module=plan.module, ask=asked_for(plan))


def _is_locked(plan: DriverPlan, state: GpuState) -> bool:
    """Whether dnf holds each package at the version it has: it knows no pins by preference."""
    if plan.package_manager != "dnf":
        return True
    locks = host.get_fact(VersionLocks)
    return all(
        locks.get(name) == upstream(state.packages[name]) for name in state.packages if of_the_driver(plan, name)
    )


def _goes_down(plan: DriverPlan, state: GpuState) -> bool:
    """A stated version is meant, also where a newer one is installed; which of both is newer is apt's to know."""
    return any(not is_of_version(plan, name, version) for name, version in state.packages.items())


def _pinned(plan: DriverPlan, names: Sequence[str]) -> dict[str, str]:
    return {name: plan.version or "" for name in names if has_stated_version(plan, name)}


def _refresh(plan: DriverPlan, lock_timeout: int) -> StringCommand:
    if plan.package_manager == "apt":
        return commands.script("refresh-deb.sh", str(lock_timeout))
    return commands.script("refresh-rpm.sh", str(lock_timeout), plan.dnf_module, *plan.prerequisites)


def _transaction(
    plan: DriverPlan, names: Sequence[str], simulation: SimulatedTransaction, lock_timeout: int, *, downgrade: bool
) -> StringCommand:
    ours = {name: version for name, version in simulation.replaced.items() if of_the_driver(plan, name)}
    if plan.package_manager == "dnf":
        replaced = " ".join(exact(ours, ours))
        wanted = exact(names, _pinned(plan, names))
        locked = " ".join(sorted(_driver_after(plan, simulation)))
        return commands.script("driver-rpm.sh", str(lock_timeout), replaced, locked, *wanted)
    coming = {**simulation.installs, **simulation.upgrades}
    brought = _pairs({name: version for name, version in coming.items() if of_the_driver(plan, name)})
    allow = "yes" if downgrade else "no"
    return commands.script("driver-deb.sh", str(lock_timeout), allow, _pairs(ours), brought, *names)


def _driver_after(plan: DriverPlan, simulation: SimulatedTransaction) -> set[str]:
    after = {*simulation.installed, *simulation.installs, *simulation.upgrades} - set(simulation.removals)
    return {name for name in after if of_the_driver(plan, name)}


def _pairs(versions: Mapping[str, str]) -> str:
    return " ".join(f"{name}={version}" for name, version in sorted(versions.items()))
