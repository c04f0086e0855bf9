"""The plan of the current host. All hosts are planned at the first question, so that problems are told at once."""

from __future__ import annotations

from pyinfra import host, inventory, state
from pyinfra.api import Host as PyinfraHost
from pyinfra.api.exceptions import PyinfraError

from rackserve.catalog.loader import Catalog, load_catalog
from rackserve.domain.errors import InputError, Problem
from rackserve.domain.node import Node
from rackserve.facts.node import NodeFact
from rackserve.fleet import plan_fleet
from rackserve.planning.plans import HostPlan

# By inventory: a deploy script runs once per host, and planning 200 hosts 200 times would be felt.
_plans: dict[int, dict[str, HostPlan]] = {}


def host_plan() -> HostPlan:
    """The plan of the current host. Raises PyinfraError that lists all problems of all hosts in this run."""
    key = id(state.inventory)
    if key not in _plans:
        _plans[key] = _plan_all(_selected())
    return _plans[key][host.name]


def host_catalog() -> Catalog:
    """The catalogue as the current host's inventory extends it."""
    return load_catalog(host_plan().host.catalog)


def node() -> Node | None:
    """What the current host is; None where it could not be read."""
    return host.get_fact(NodeFact)


def _selected() -> list[PyinfraHost]:
    """The hosts of this run: all, or those that --limit names."""
    return [candidate for candidate in inventory if state.is_host_in_limit(candidate)]


def _plan_all(hosts: list[PyinfraHost]) -> dict[str, HostPlan]:
    try:
        plans = plan_fleet((candidate.name, candidate.data.dict()) for candidate in hosts)
    except InputError as error:
        raise _stop(error.problems) from error
    problems = [problem for plan in plans for problem in (*plan.errors, *plan.not_installable)]
    if problems:
        raise _stop(problems)
    return {plan.host.name: plan for plan in plans}


def _stop(problems: tuple[Problem, ...] | list[Problem]) -> PyinfraError:
    lines = "\n".join(f"  {problem}" for problem in problems)
    return PyinfraError(f"the inventory cannot be deployed, nothing was changed:\n{lines}")
