"""Every tag under every system, and the few drivers that they come to."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import Problem
from rackserve.domain.host import Host
from rackserve.domain.node import Node
from rackserve.planning.driver_plan import DriverPlan
from rackserve.planning.node_driver import driver_for

CATALOG = load_catalog()
PAIRS = [(tag, system) for tag in CATALOG.gpus for system in CATALOG.stacks.systems]


def node(system: str, architecture: str = "x86_64", **values: Any) -> Node:
    distribution, _, version = system.partition("-")
    facts = {
        "distribution": distribution,
        "version": version if version[0].isdigit() else "",
        "codename": version,
        "architecture": architecture,
        "glibc": "2.36",
        "memory_mib": 65536,
        "systemd": True,
        "cpu_flags": frozenset(),
        "pci_gpus": (),
    }
    return Node.model_validate(facts | values)


def outcome(tag: str, system: str, architecture: str = "x86_64", **settings: Any) -> DriverPlan | tuple[Problem, ...]:
    host = Host.model_validate({"name": "h1", "gpu_tag": tag} | settings)
    return driver_for(host, CATALOG.gpus[tag], node(system, architecture), CATALOG)


def planned(tag: str, system: str, architecture: str = "x86_64", **settings: Any) -> DriverPlan:
    plan = outcome(tag, system, architecture, **settings)
    assert isinstance(plan, DriverPlan), [str(problem) for problem in plan]
    return plan


def _class_of(tag: str, system: str) -> object:
    """The outcome, apart from what is the card's alone: its tag, its PCI ids, its memory."""
    found = outcome(tag, system)
    if isinstance(found, DriverPlan):
        return replace(found, gpu_tag="", gpu_ids=(), vram_mib=0)
    return tuple((problem.key, problem.message.replace(tag, "the card")) for problem in found)


def _classes() -> dict[object, list[tuple[str, str]]]:
    found = defaultdict(list)
    for pair in PAIRS:
        found[_class_of(*pair)].append(pair)
    return dict(found)


# A question about drivers is asked once for each class, of its first pair.
CLASSES = _classes()
PLANNED = [pairs[0] for found, pairs in CLASSES.items() if isinstance(found, DriverPlan)]
REFUSED = [pairs[0] for found, pairs in CLASSES.items() if not isinstance(found, DriverPlan)]


def _installing() -> list[tuple[str, str]]:
    installing = [pair for pair in PAIRS if isinstance(plan := outcome(*pair), DriverPlan) and plan.installs]
    of_tags = {tag: (tag, system) for tag, system in reversed(installing)}
    return sorted({*of_tags.values(), *(pair for pair in PLANNED if pair in installing)})


# Of each class with packages and of each card that has any, one pair.
INSTALLING = _installing()
