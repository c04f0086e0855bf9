"""From the data of an inventory to the plans of its hosts, the one way that the command line and the deploys share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError
from rackserve.keys import key_problems
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import HostPlan
from rackserve.settings import load_hosts


def plan_fleet(inventory: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[HostPlan, ...]:
    """Plan every host, in the inventory's order; a host whose services do not fit carries that in its `errors`.

    Raises InputError for what cannot be planned at all: every problem of every host, each told once.
    """
    hosts = load_hosts(inventory)
    problems = key_problems(hosts)
    plans: list[HostPlan] = []
    for host in hosts:
        try:
            plans.extend(plan_hosts((host,), load_catalog(host.catalog)))
        except InputError as error:
            # A broken catalogue file is one problem, however many hosts use it.
            problems.extend(problem for problem in error.problems if problem not in problems)
    if problems:
        raise InputError(problems)
    return tuple(plans)
