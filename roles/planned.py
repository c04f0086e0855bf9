"""The plan of the current host. All hosts are planned at the first question, so that problems are told at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pyinfra import host, inventory, state
from pyinfra.api import Host as PyinfraHost
from pyinfra.api.exceptions import PyinfraError

from rackserve.catalog.loader import Catalog, load_catalog
from rackserve.domain.errors import InputError, Problem
from rackserve.domain.node import Node
from rackserve.facts.node import NodeFact
from rackserve.fleet import plan_fleet
from rackserve.planning.driver_plan import DriverPlan
from rackserve.planning.driver_recipes import PackageManager, package_manager
from rackserve.planning.installable import not_installable
from rackserve.planning.multi_node import bound, taken_apart
from rackserve.planning.node_driver import driver_for
from rackserve.planning.plans import HostPlan
from rackserve.planning.preflight import PYTHON_RUNTIMES, environment_of
from rackserve.runtimes.environments import FromRequirements

# By inventory: a deploy script runs once per host, and planning 200 hosts 200 times would be felt.
_plans: dict[int, dict[str, HostPlan]] = {}
# By inventory and host: every role asks, and each question would be a round trip.
_nodes: dict[tuple[int, str], Node | None] = {}


def host_plan(*, services: bool = True) -> HostPlan:
    """The plan of the current host. Raises PyinfraError that lists all problems of all hosts in this run.

    services: they are going to be installed, so what this version cannot install is a problem too.
    """
    key = id(state.inventory)
    if key not in _plans:
        _plans[key] = _plan_all([candidate.name for candidate in _selected()])
    if services and (problems := list(_not_to_be_served(_plans[key]))):
        raise _stop(problems)
    return _plans[key][host.name]


def bound_hosts() -> tuple[str, ...]:
    """The other hosts of this run that instances over several hosts bind the current one to."""
    plan = host_plan()
    return bound(_plans[id(state.inventory)], plan.host.name)


def host_catalog() -> Catalog:
    """The catalogue as the current host's inventory extends it."""
    return load_catalog(host_plan(services=False).host.catalog)


def node() -> Node | None:
    """What the current host is; None where it could not be read."""
    key = (id(state.inventory), host.name)
    if key not in _nodes:
        _nodes[key] = host.get_fact(NodeFact)
    return _nodes[key]


def manager() -> PackageManager:
    """What installs packages on the current host."""
    seen = node()
    return "apt" if seen is None else package_manager(seen.system)


def python_environment(runtime: str) -> FromRequirements | None:
    """What the current host gets of a Python runtime; None where no service has it, or the host is refused."""
    seen = node()
    found = environment_of(host_plan(), host_catalog(), seen, runtime) if seen is not None else None
    return found if isinstance(found, FromRequirements) else None


def python_environments() -> dict[str, FromRequirements]:
    """All of them that the current host gets, by runtime."""
    found = {runtime: python_environment(runtime) for runtime in PYTHON_RUNTIMES}
    return {runtime: origin for runtime, origin in found.items() if origin is not None}


def driver_plan() -> DriverPlan | tuple[Problem, ...]:
    """The driver plan of the current host, for the system that it really runs, or why there is none."""
    planned, seen = host_plan(services=False), node()
    if seen is None:
        return (Problem("the host did not tell what it is (os-release, memory, architecture)"),)
    return driver_for(planned.host, planned.gpu, seen, host_catalog())


def _selected() -> list[PyinfraHost]:
    """The hosts of this run: all, or those that --limit names."""
    return [candidate for candidate in inventory if state.is_host_in_limit(candidate)]


def _not_to_be_served(plans: Mapping[str, HostPlan]) -> Iterator[Problem]:
    """What cannot be installed, and instances that the run would take apart."""
    for plan in plans.values():
        yield from not_installable(plan, load_catalog(plan.host.catalog))
    yield from taken_apart(plans)


def _plan_all(selected: list[str]) -> dict[str, HostPlan]:
    try:
        plans = plan_fleet(((candidate.name, candidate.data.dict()) for candidate in inventory), selected)
    except InputError as error:
        raise _stop(error.problems) from error
    if problems := [problem for plan in plans for problem in plan.errors]:
        raise _stop(problems)
    return {plan.host.name: plan for plan in plans}


def _stop(problems: tuple[Problem, ...] | list[Problem]) -> PyinfraError:
    lines = "\n".join(f"  {problem}" for problem in problems)
    return PyinfraError(f"the inventory cannot be deployed, nothing was changed:\n{lines}")
