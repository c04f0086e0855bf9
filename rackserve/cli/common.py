"""What several commands share: options, and the way from an inventory to plans."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape

from rackserve.fleet import plan_fleet
from rackserve.planning.plans import HostPlan
from rackserve.rollout.inventory import InventoryHost, read_inventory

Command = TypeVar("Command", bound=Callable[..., Any])

# People's text; stdout belongs to --json alone.
console = Console(stderr=True, highlight=False)


def inventory_arguments(command: Command) -> Command:
    """INVENTORY, --limit and --json, as every command that decides about hosts has them."""
    command = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")(command)
    command = click.option("--limit", multiple=True, help="Only hosts of this name, pattern or group; repeatable.")(
        command
    )
    return click.argument("inventory")(command)


def planned(inventory: str, limit: tuple[str, ...]) -> list[tuple[InventoryHost, HostPlan]]:
    """Plan the hosts of an inventory. Raises InputError that carries all problems of all hosts."""
    entries = read_inventory(inventory, limit)
    return list(zip(entries, plan_fleet((entry.name, entry.data) for entry in entries), strict=True))


def print_json(value: Any) -> None:
    """The one object of a --json command."""
    click.echo(json.dumps(value, indent=2))


def print_problems(plans: list[HostPlan], *, to_install: bool = True) -> bool:
    """Print every refusal; whether there was one. `to_install`: also of what fits but cannot be installed."""
    problems = [problem for plan in plans for problem in plan.errors]
    if to_install:
        problems += [problem for plan in plans for problem in plan.not_installable]
    for problem in problems:
        console.print(f"[red]no[/red]  {escape(str(problem))}", soft_wrap=True)
    return bool(problems)
