"""What several commands share: options, and the way from an inventory to plans."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape

from rackserve.catalog.loader import Catalog, load_catalog
from rackserve.domain.errors import Problem, suggestion
from rackserve.domain.gpu import Gpu
from rackserve.fleet import plan_fleet
from rackserve.planning.installable import not_installable
from rackserve.planning.instance import GGUF_RUNTIMES
from rackserve.planning.plans import HostPlan
from rackserve.planning.ram_engine import without_gpu
from rackserve.rollout.inventory import InventoryHost, limited, read_inventory

Command = TypeVar("Command", bound=Callable[..., Any])

# People's text; stdout belongs to --json alone.
console = Console(stderr=True, highlight=False)
# RAM of a host in MiB, up to 64 TiB as in an inventory.
MEMORY_MIB = click.IntRange(64, 64 * 2**20)


def inventory_arguments(command: Command) -> Command:
    """INVENTORY, --limit and --json, as every command that decides about hosts has them."""
    command = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")(command)
    command = click.option("--limit", multiple=True, help="Only hosts of this name, pattern or group; repeatable.")(
        command
    )
    return click.argument("inventory")(command)


def planned(inventory: str, limit: tuple[str, ...]) -> list[tuple[InventoryHost, HostPlan]]:
    """Plan the hosts of an inventory that `limit` leaves. Raises InputError that carries all of their problems."""
    entries = read_inventory(inventory)
    chosen = limited(entries, limit, inventory)
    plans = plan_fleet(((entry.name, entry.data) for entry in entries), [entry.name for entry in chosen])
    return list(zip(chosen, plans, strict=True))


def gpu_of(catalog: Catalog, tag: str | None, options: Mapping[str, Any]) -> tuple[Gpu | None, list[Problem]]:
    """The GPU of a tag, and what --gpus, --memory-mib and --runtime say that does not go with it."""
    if tag is None:
        return None, [Problem("is needed: a GPU tag", key="--gpu")]
    gpu = catalog.gpus.get(tag)
    if gpu is None:
        return None, [Problem(f"{tag} is not in the catalogue", key="--gpu", hint=suggestion(tag, catalog.gpus))]
    problems = []
    if not gpu.vram_mib and options["memory_mib"] is None:
        problems.append(Problem(f"is needed: {gpu.name} serves from the host's memory", key="--memory-mib"))
    if not gpu.vram_mib and options["gpus"] > 1:
        problems.append(Problem(f"{options['gpus']}: {gpu.name} has one memory, that of the host", key="--gpus"))
    if gpu.vendor == "none" and options["runtime"] not in {None, *GGUF_RUNTIMES}:
        problems.append(Problem(without_gpu(options["runtime"]), key="--runtime"))
    return gpu, problems


def in_words(problems: Iterable[Problem]) -> str:
    """What is wrong and what would work, without where: in a command that is about one thing."""
    return "; ".join(f"{problem.message}{f' ({problem.hint})' if problem.hint else ''}" for problem in problems)


def print_json(value: Any) -> None:
    """The one object of a --json command."""
    click.echo(json.dumps(value, indent=2))


def print_problems(plans: list[HostPlan], *, to_install: bool = True) -> bool:
    """Print every refusal; whether there was one. `to_install`: also of what fits but cannot be installed."""
    problems = [problem for plan in plans for problem in plan.errors]
    if to_install:
        problems += [problem for plan in plans for problem in not_installable(plan, load_catalog(plan.host.catalog))]
    for problem in problems:
        console.print(f"[red]no[/red]  {escape(str(problem))}", soft_wrap=True)
    return bool(problems)
