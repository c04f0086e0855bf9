"""One host for every tag and every runtime that it supports: the widest inventory there is."""

from __future__ import annotations

import functools
from typing import Any, get_args

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError
from rackserve.domain.service import RuntimeName
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import HostPlan
from rackserve.settings import load_hosts

RUNTIMES: tuple[str, ...] = get_args(RuntimeName)
# The smallest model that is there for every runtime.
MODEL = "qwen3-0.6b"
# Settings that no default brings into a unit.
SERVICE: dict[str, Any] = {
    "name": "chat",
    "model": MODEL,
    "max_model_len": 4096,
    "concurrency": 2,
    "max_output_tokens": 512,
    "temperature": 0.7,
    "top_p": 0.95,
}


def host_of(tag: str, runtime: str, **service: Any) -> dict[str, Any]:
    """Data of a host with one service."""
    vendor = load_catalog().gpus[tag].vendor
    memory = {"memory_mib": 65536} if vendor in {"none", "apple"} else {}
    system = {"os": "macos-15"} if vendor == "apple" else {}
    return {"gpu_tag": tag, **memory, **system, "services": [{**SERVICE, "runtime": runtime, **service}]}


@functools.cache
def every_plan() -> tuple[tuple[str, str, HostPlan], ...]:
    """(tag, runtime, plan) of all that go together; each service has a name of its own."""
    pairs = [(tag, runtime) for tag in sorted(load_catalog().gpus) for runtime in RUNTIMES]
    plans = [(tag, runtime, plan_of(tag, runtime, name=f"s{number}")) for number, (tag, runtime) in enumerate(pairs)]
    return tuple((tag, runtime, plan) for tag, runtime, plan in plans if plan is not None)


def plan_of(tag: str, runtime: str, **service: Any) -> HostPlan | None:
    """The plan; None where the tag and the runtime do not go together, or the service does not fit."""
    try:
        (plan,) = plan_hosts(load_hosts([(tag, host_of(tag, runtime, **service))]), load_catalog())
    except InputError:
        return None
    return None if plan.errors else plan
