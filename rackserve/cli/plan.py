"""`rackserve plan`: does it fit, with which numbers, and why. Offline."""

from __future__ import annotations

import click
from rich.markup import escape

from rackserve.cli.common import console, inventory_arguments, planned, print_json, print_problems
from rackserve.domain.errors import InputError
from rackserve.planning.plans import HostPlan
from rackserve.rendering import unit_digest
from rackserve.report.bars import memory_bar
from rackserve.runtimes import llamacpp


@click.command()
@inventory_arguments
def plan(inventory: str, limit: tuple[str, ...], as_json: bool) -> None:
    """Show what INVENTORY would serve, in how much memory, and why; exit 1 if something does not fit."""
    try:
        plans = [host_plan for _, host_plan in planned(inventory, limit)]
    except InputError as error:
        if as_json:
            print_json({"hosts": [], "errors": [problem.as_dict() for problem in error.problems]})
        raise
    if as_json:
        print_json({"hosts": [_host_object(host_plan) for host_plan in plans], "errors": []})
    else:
        for host_plan in plans:
            _show(host_plan)
    refused = print_problems(plans)
    raise click.exceptions.Exit(1 if refused else 0)


def _host_object(host_plan: HostPlan) -> dict[str, object]:
    services = [
        {**service.as_dict(), "argv": list(llamacpp.argv(service)), "digest": unit_digest(service)}
        for service in host_plan.services
    ]
    return {
        "name": host_plan.host.name,
        "stack": {"gpu_tag": host_plan.gpu.tag, "simulated": host_plan.host.gpu_simulated, "runtime": "llama.cpp"},
        "memory_mib": host_plan.capacity_mib,
        "budget_mib": host_plan.budget_mib,
        "services": services,
        "errors": [problem.as_dict() for problem in host_plan.errors],
    }


def _show(host_plan: HostPlan) -> None:
    console.print(f"[bold]{escape(host_plan.host.name)}[/bold]  {host_plan.gpu.tag} ({host_plan.gpu.name})")
    console.print(memory_bar(host_plan), soft_wrap=True)
    for service in host_plan.services:
        console.print(f"  [bold]{service.name}[/bold]  {service.model.name} at {service.probe_url}/v1", soft_wrap=True)
        for reason in service.reasons:
            console.print(f"      {escape(reason)}", soft_wrap=True)
        for warning in service.warnings:
            console.print(f"      [yellow]warning[/yellow] {escape(warning)}", soft_wrap=True)
