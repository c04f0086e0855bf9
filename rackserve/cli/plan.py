"""`rackserve plan`: does it fit, with which numbers, and why. Offline."""

from __future__ import annotations

import dataclasses

import click
from rich.markup import escape

from rackserve.catalog.loader import load_catalog
from rackserve.cli.common import console, inventory_arguments, planned, print_json, print_problems
from rackserve.domain.errors import InputError, Problem
from rackserve.planning.fit import in_memory
from rackserve.planning.installable import not_installable
from rackserve.planning.plans import LLAMACPP, GpuServicePlan, HostPlan
from rackserve.planning.stack import Stack
from rackserve.rendering import service_digest
from rackserve.report.bars import card_bars, memory_bar


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
    refused = print_problems(plans, to_install=False)
    raise click.exceptions.Exit(1 if refused else 0)


def _host_object(host_plan: HostPlan) -> dict[str, object]:
    # RAM is no budget of a host whose services live on GPUs.
    ram = in_memory(host_plan.host, host_plan.gpu)
    services = [{**service.as_dict(), "digest": service_digest(service)} for service in host_plan.all_services]
    return {
        "name": host_plan.host.name,
        "stack": stack_object(host_plan),
        "memory_mib": host_plan.capacity_mib if ram else None,
        "budget_mib": host_plan.budget_mib if ram else None,
        "services": services,
        "errors": [problem.as_dict() for problem in host_plan.errors],
        "not_installable": [problem.as_dict() for problem in _not_installable(host_plan)],
    }


def stack_object(host_plan: HostPlan) -> dict[str, object]:
    """The `stack` of a host for --json: driver, CUDA or ROCm and runtimes, with reasons and warnings."""
    common = {
        "gpu_tag": host_plan.gpu.tag,
        "gpu_count": host_plan.host.gpu_count,
        "simulated": host_plan.host.gpu_simulated,
    }
    stack = host_plan.stack
    if stack is None:
        return {**common, "runtime": LLAMACPP} if host_plan.services else common
    return {**common, **dataclasses.asdict(stack)}


def _show(host_plan: HostPlan) -> None:
    count = f"{host_plan.host.gpu_count} x " if host_plan.host.gpu_count > 1 else ""
    console.print(f"[bold]{escape(host_plan.host.name)}[/bold]  {count}{host_plan.gpu.tag} ({host_plan.gpu.name})")
    if host_plan.stack is not None:
        console.print(f"  {escape(_stack_line(host_plan.stack))}", soft_wrap=True)
        for warning in host_plan.stack.warnings:
            console.print(f"  [yellow]warning[/yellow] {escape(warning)}", soft_wrap=True)
    if in_memory(host_plan.host, host_plan.gpu):
        console.print(memory_bar(host_plan), soft_wrap=True)
    for service in host_plan.services:
        console.print(f"  [bold]{service.name}[/bold]  {service.model.name} at {service.probe_url}/v1", soft_wrap=True)
        _show_why(service.reasons, service.warnings)
    for bar in card_bars(host_plan):
        console.print(bar, soft_wrap=True)
    for planned_service in host_plan.gpu_services:
        console.print(f"  [bold]{planned_service.name}[/bold]  {escape(_title(planned_service))}", soft_wrap=True)
        # Of an instance over several hosts the head tells it for all.
        reasons = planned_service.reasons if planned_service.answers else ()
        _show_why(reasons, planned_service.warnings)
    for problem in _not_installable(host_plan):
        console.print(f"  [yellow]fits, and cannot be installed[/yellow] {escape(str(problem))}", soft_wrap=True)


def _not_installable(host_plan: HostPlan) -> tuple[Problem, ...]:
    return not_installable(host_plan, load_catalog(host_plan.host.catalog))


def _title(service: GpuServicePlan) -> str:
    """What is served where; of an instance over several hosts the head names the others, and these name their part."""
    cards, request, member = ", ".join(map(str, service.gpus)), service.sizing.request, service.member
    if member is not None and not member.is_head:
        return f"part of {service.name} on {member.head} (rank {member.rank} of {member.size}), on GPU {cards}"
    with_others = f" and on {', '.join(member.hosts[1:])}" if member is not None else ""
    runtime = f"{request.runtime} {request.version}"
    where = f"on GPU {cards}{with_others}" if service.gpus else "in RAM"
    return f"{request.model} {where} with {runtime}, port {service.port}"


def _show_why(reasons: tuple[str, ...], warnings: tuple[str, ...]) -> None:
    for reason in reasons:
        console.print(f"      {escape(reason)}", soft_wrap=True)
    for warning in warnings:
        console.print(f"      [yellow]warning[/yellow] {escape(warning)}", soft_wrap=True)


def _stack_line(stack: Stack) -> str:
    parts = [stack.os or "os not stated"]
    if stack.driver_branch:
        flavour = f", {stack.kernel_module} modules" if stack.kernel_module else ""
        parts.append(f"driver {stack.driver_version or stack.driver_branch}{flavour}")
    parts.extend(f"{name} {version}" for name, version in (("CUDA", stack.cuda), ("ROCm", stack.rocm)) if version)
    parts.extend(f"{name} {runtime.version} ({runtime.install})" for name, runtime in stack.runtimes.items())
    return "; ".join(parts)
