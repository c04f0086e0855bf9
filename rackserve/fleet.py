"""From the data of an inventory to the plans of its hosts, the one way that the command line and the deploys share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError
from rackserve.keys import key_problems
from rackserve.planning.fit import plan_hosts
from rackserve.planning.multi_node import agree, spread
from rackserve.planning.plans import HostPlan
from rackserve.settings import load_hosts, tied

Inventory = Iterable[tuple[str, Mapping[str, Any]]]


def plan_fleet(inventory: Inventory, selected: Collection[str] | None = None) -> tuple[HostPlan, ...]:
    """Plan every host, in the inventory's order; a host whose services do not fit carries that in its `errors`.

    selected: names of the hosts whose plans are wanted, None for all. Those that instances over several hosts tie to
    them are planned with them; what is wrong with other hosts is not told.
    Raises InputError for what cannot be planned at all: every problem of every host, each told once.
    """
    entries = tuple(inventory)
    names = [name for name, _ in entries]
    wanted = names if selected is None else selected
    hosts = load_hosts(tied(entries, wanted))
    together = spread(hosts, names)
    problems = [*key_problems(hosts), *together.problems]
    plans: list[HostPlan] = []
    for host in together.hosts:
        try:
            plans.extend(plan_hosts((host,), load_catalog(host.catalog), together.parts))
        except InputError as error:
            # A broken catalogue file is one problem, however many hosts use it.
            problems.extend(problem for problem in error.problems if problem not in problems)
    if problems:
        raise InputError(problems)
    return tuple(plan for plan in agree(plans, together.parts) if plan.host.name in wanted)
