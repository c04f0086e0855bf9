"""Memory as a bar: what each part takes of a host, and where the ceiling is."""

from __future__ import annotations

import itertools

from rich.text import Text

from rackserve.planning.budget import GIB
from rackserve.planning.memory import MIB
from rackserve.planning.plans import HostPlan
from rackserve.planning.sized import Sizing

_WIDTH = 60
_PARTS = (("weights", "█", "blue"), ("KV cache", "▓", "green"), ("other", "▒", "magenta"))


def memory_bar(plan: HostPlan) -> Text:
    """One line: weights, KV cache and the rest of all services, drawn to scale, with the ceiling marked by `|`."""
    engines = [service.sizing for service in plan.gpu_services if not service.gpus]
    weights = sum(sizing.weights_bytes for sizing in engines) // MIB
    kv_cache = sum(sizing.kv_cache_bytes for sizing in engines) // MIB
    sizes = (
        weights + sum(service.footprint.weights_mib for service in plan.services),
        kv_cache + sum(service.footprint.kv_cache_mib for service in plan.services),
        plan.engines_mib
        - weights
        - kv_cache
        + sum(service.footprint.compute_mib + service.footprint.process_mib for service in plan.services),
    )
    bar = Text("  ")
    bar.append_text(_drawn(sizes, plan.capacity_mib, plan.host.memory_ceiling))
    legend = ", ".join(f"{name} {size}" for size, (name, _, _) in zip(sizes, _PARTS, strict=True))
    bar.append(f" {plan.used_mib} of {plan.budget_mib} MiB budget ({legend})")
    return bar


def gpu_bar(sizing: Sizing, label: str = "") -> Text:
    """One line for each GPU of an instance, all alike: the tightest stage's memory, with the ceiling marked."""
    stage = sizing.stage
    other = stage.activation + stage.overhead + stage.graphs
    sizes = (sizing.weights_bytes, sizing.kv_cache_bytes, other)
    bar = Text(f"  {label}")
    bar.append_text(_drawn(sizes, stage.total, sizing.request.ceiling))
    parts = ", ".join(f"{name} {size / GIB:.1f}" for size, (name, _, _) in zip(sizes, _PARTS, strict=True))
    bar.append(f" {sum(sizes) / GIB:.1f} of {stage.total / GIB:.1f} GiB ({parts})")
    return bar


def card_bars(plan: HostPlan) -> list[Text]:
    """One line for each run of a host's GPUs that carry the same services, with the host's ceiling marked."""
    carried = [tuple(name.name for name in plan.gpu_services if number in name.gpus) for number in _cards(plan)]
    bars = []
    for names, run in itertools.groupby(_cards(plan), key=carried.__getitem__):
        numbers = list(run)
        label = f"GPU {numbers[0]}" if len(numbers) == 1 else f"GPU {numbers[0]}-{numbers[-1]}"
        bars.append(_card_bar(plan, names, f"{label:<9}"))
    return bars


def _cards(plan: HostPlan) -> range:
    return range(plan.host.gpu_count if any(service.gpus for service in plan.gpu_services) else 0)


def _card_bar(plan: HostPlan, names: tuple[str, ...], label: str) -> Text:
    sharing = [service.sizing for service in plan.gpu_services if service.name in names]
    total = max((sizing.stage.total for sizing in sharing), default=plan.gpu.usable_mib * 1024**2)
    sizes = (
        sum(sizing.weights_bytes for sizing in sharing),
        sum(sizing.kv_cache_bytes for sizing in sharing),
        sum(sizing.stage.activation + sizing.stage.overhead + sizing.stage.graphs for sizing in sharing),
    )
    bar = Text(f"  {label}")
    bar.append_text(_drawn(sizes, total, plan.host.memory_ceiling))
    bar.append(f" {sum(sizes) / GIB:.1f} of {total / GIB:.1f} GiB: {', '.join(names) or 'free'}")
    return bar


def _drawn(sizes: tuple[float, ...], capacity: float, ceiling: float) -> Text:
    """The parts to scale; what is over the capacity is cut off at its end."""
    bar = Text("[")
    drawn = 0
    mark = round(_WIDTH * ceiling)
    for size, (_, character, style) in zip(sizes, _PARTS, strict=True):
        # A part that is there is seen, however small.
        width = max(1, round(size / capacity * _WIDTH)) if size and capacity else 0
        width = min(width, _WIDTH - drawn)
        bar.append(character * width, style=style)
        drawn += width
    bar.append("".join("|" if column == mark else "·" for column in range(drawn, _WIDTH)))
    bar.append("]")
    return bar
