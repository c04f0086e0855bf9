"""Inventories of equal hosts with an instance over several of them, and what comes of them."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.domain.errors import InputError, Problem
from rackserve.fleet import plan_fleet
from rackserve.planning.plans import GpuServicePlan, HostPlan

SMALL = {"model": "qwen3-8b", "max_model_len": 8192}
BIG = {"name": "big", "model": "llama-3.3-70b-instruct", "max_model_len": 8192, "gpus": 4}
EVERYWHERE = "0.0.0.0"  # noqa: S104 (stated, not bound)
Inventory = list[tuple[str, dict[str, Any]]]


def pool(*services: dict[str, Any], count: int = 3, **data: Any) -> Inventory:
    """Hosts h1, h2 ... of 4 cards each; the services stand on h1."""
    common = {"gpu_tag": "h100-sxm-80gb", "gpu_count": 4, "os": "ubuntu-24.04", "node_interface": "eno1"} | data
    hosts = [(f"h{number}", common | {"node_address": f"10.0.0.{number}"}) for number in range(1, count + 1)]
    hosts[0][1]["services"] = list(services)
    return hosts


def spread(*nodes: str, **changes: Any) -> dict[str, Any]:
    return BIG | {"nodes": list(nodes or ("h2",))} | changes


def planned(inventory: Inventory, selected: list[str] | None = None) -> dict[str, HostPlan]:
    return {plan.host.name: plan for plan in plan_fleet(inventory, selected)}


def parts(inventory: Inventory, name: str = "big") -> dict[str, GpuServicePlan]:
    """The instance's plans by host."""
    plans = planned(inventory)
    assert not [problem for plan in plans.values() for problem in plan.errors]
    return {host: service for host, plan in plans.items() for service in plan.gpu_services if service.name == name}


def problems(inventory: Inventory) -> list[Problem]:
    with pytest.raises(InputError) as caught:
        plan_fleet(inventory)
    return list(caught.value.problems)


def only_problem(inventory: Inventory) -> Problem:
    (problem,) = problems(inventory)
    return problem


def refused(inventory: Inventory) -> dict[str, Problem]:
    """Why the instance has no place, on each of its hosts; it is planned on none of them."""
    plans = planned(inventory)
    assert not [service for plan in plans.values() for service in plan.gpu_services if service.name == "big"]
    found = {host: [entry for entry in plan.errors if entry.service == "big"] for host, plan in plans.items()}
    assert all(len(entries) == 1 for entries in found.values() if entries)
    return {host: entries[0] for host, entries in found.items() if entries}
