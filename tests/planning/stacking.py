"""Cards and requests to solve stacks for, on the facts that we ship."""

from __future__ import annotations

from typing import Any

from rackserve.catalog.loader import Catalog, load_catalog
from rackserve.domain.errors import Problem
from rackserve.domain.gpu import Gpu
from rackserve.planning.stack import Stack, StackRequest, solve

FACTS = {"source": "test", "date": "2026-11-24"}


def card(tag: str, target: str, module: str = "either", **changes: Any) -> Gpu:
    base = {"tag": tag, "name": tag, "vendor": "nvidia", "vram_mib": 16384, "target": target, "kernel_module": module}
    return Gpu.model_validate(base | FACTS | changes)


V100 = card("v100", "7.0", "proprietary")
T4 = card("t4", "7.5")
A100 = card("a100", "8.0", driver_min="450", nvswitch=True)
L40S = card("l40s", "8.9", driver_min="525")
RTX_5090 = card("rtx-5090", "12.0", "open", driver_min="570")
B200 = card("b200", "10.0", "open", driver_min="570", nvswitch=True)
MI300X = card("mi300x", "gfx942", "none", vendor="amd", link="xgmi")
ARC = card("arc-b580", "xe2", "none", vendor="intel", driver_min="6.12")
M4 = card("apple-m4-max", "metal3", "none", vendor="apple", unified_share=0.75)
CPU = card("cpu", "", "none", vendor="none", vram_mib=0)


def catalog(**stacks: Any) -> Catalog:
    """The shipped catalogue, with entries added to sections of the stack facts."""
    shipped = load_catalog()
    changed = {section: {**getattr(shipped.stacks, section), **entries} for section, entries in stacks.items()}
    return shipped.model_copy(update={"stacks": shipped.stacks.model_copy(update=changed)})


def outcome(*gpus: Gpu, facts: Catalog | None = None, **wish: Any) -> Stack | tuple[Problem, ...]:
    if "runtimes" in wish:
        wish["runtimes"] = tuple(
            (name, version or None) for name, _, version in (text.partition(" ") for text in wish["runtimes"])
        )
    return solve(StackRequest("h1", gpus, **({"os": "ubuntu-24.04"} | wish)), facts or load_catalog())


def solved(*gpus: Gpu, **wish: Any) -> Stack:
    stack = outcome(*gpus, **wish)
    assert isinstance(stack, Stack), [str(problem) for problem in stack]
    return stack


def refused(*gpus: Gpu, **wish: Any) -> tuple[Problem, ...]:
    problems = outcome(*gpus, **wish)
    assert not isinstance(problems, Stack), problems
    assert all(problem.host == "h1" and problem.key and problem.message for problem in problems)
    return problems


def the_problem(*gpus: Gpu, **wish: Any) -> Problem:
    problems = refused(*gpus, **wish)
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]
