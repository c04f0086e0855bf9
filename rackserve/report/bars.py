"""Memory as a bar: what each part takes of a host, and where the ceiling is."""

from __future__ import annotations

from rich.text import Text

from rackserve.planning.plans import HostPlan

_WIDTH = 60
_PARTS = (("weights", "█", "blue"), ("KV cache", "▓", "green"), ("other", "▒", "magenta"))


def memory_bar(plan: HostPlan) -> Text:
    """One line: weights, KV cache and the rest of all services, drawn to scale, with the ceiling marked by `|`."""
    sizes = (
        sum(service.footprint.weights_mib for service in plan.services),
        sum(service.footprint.kv_cache_mib for service in plan.services),
        sum(service.footprint.compute_mib + service.footprint.process_mib for service in plan.services),
    )
    bar = Text("  [")
    drawn = 0
    ceiling = round(_WIDTH * plan.host.memory_ceiling)
    for size, (_, character, style) in zip(sizes, _PARTS, strict=True):
        # A part that is there is seen, however small.
        width = max(1, round(size / plan.capacity_mib * _WIDTH)) if size and plan.capacity_mib else 0
        bar.append(character * width, style=style)
        drawn += width
    rest = "".join("|" if column == ceiling else "·" for column in range(drawn, _WIDTH))
    bar.append(f"{rest}]")
    legend = ", ".join(f"{name} {size}" for size, (name, _, _) in zip(sizes, _PARTS, strict=True))
    bar.append(f" {plan.used_mib} of {plan.budget_mib} MiB budget ({legend})")
    return bar
