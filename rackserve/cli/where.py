"""`rackserve where`: which hosts of an inventory could run a model, and how well. Offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rackserve.catalog.loader import Catalog, load_catalog
from rackserve.cli.common import console, planned, print_json
from rackserve.cli.model_source import ModelSource, model_source
from rackserve.cli.size import RUNTIMES
from rackserve.domain.errors import InputError, Problem
from rackserve.domain.policy import KV_HEADROOM
from rackserve.planning.plans import HostPlan
from rackserve.planning.question import Question
from rackserve.planning.sized import Sizing
from rackserve.planning.where import NO_GPU_FREE, Placement, in_order, place

_WIDTH = 400


@click.command()
@click.argument("model_and_inventory", nargs=-1, metavar="[MODEL] INVENTORY")
@click.option("--config", type=click.Path(path_type=Path), help="A model's own config.json instead of MODEL.")
@click.option("--gguf", type=click.Path(path_type=Path), help="A GGUF file instead of MODEL.")
@click.option("--limit", multiple=True, help="Only hosts of this name, pattern or group; repeatable.")
@click.option("--runtime", type=click.Choice(RUNTIMES), help="Default: vllm where it runs, else llama.cpp.")
@click.option("--quantization", default="", help="Default: as the checkpoint is, or what each GPU multiplies.")
@click.option("--kv-cache-dtype", default="auto", show_default=True)
@click.option("--max-model-len", type=click.IntRange(1, 2**31), help="Tokens of prompt plus completion.")
@click.option("--concurrency", type=click.IntRange(1, 65536), help="Requests at the peak.")
@click.option("--avg-tokens", type=click.IntRange(1, 2**31), help="Tokens of an average request.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def where(  # each option is a parameter
    model_and_inventory: tuple[str, ...], limit: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Show which hosts of INVENTORY could run MODEL, as if they were empty and beside what is planned on them.

    Exit 1 if none can.
    """
    try:
        model, inventory = _arguments(model_and_inventory, options)
        plans = [plan for _, plan in planned(inventory, limit)]
        placements = in_order(_placements(plans, model, options))
    except InputError as error:
        if as_json:
            problems = [problem.as_dict() for problem in error.problems]
            print_json({"model": None, "hosts": [], "errors": problems})
        raise
    name = model or _source(load_catalog(), model, options).name
    if as_json:
        print_json({"model": name, "hosts": [placement.as_dict() for placement in placements], "errors": []})
    else:
        _show(name, placements)
    raise click.exceptions.Exit(0 if any(placement.fits for placement in placements) else 1)


def _arguments(given: tuple[str, ...], options: dict[str, Any]) -> tuple[str | None, str]:
    """The model, unless an option names it, and the inventory. Raises InputError for everything that is wrong."""
    named = [name for name in ("config", "gguf") if options[name] is not None]
    expected = "INVENTORY" if named else "MODEL INVENTORY"
    problems = []
    if len(named) > 1:
        problems.append(Problem("name one of them", key="--config, --gguf"))
    if len(given) != (1 if named else 2):
        hint = "MODEL is left out where --config or --gguf names it"
        problems.append(Problem(f"expected {expected}, found {' '.join(given) or 'nothing'}", hint=hint))
    average, limit = options["avg_tokens"], options["max_model_len"]
    if average is not None and limit is not None and average * KV_HEADROOM > limit:
        problems.append(Problem(f"{average} x {KV_HEADROOM} is more than --max-model-len {limit}", key="--avg-tokens"))
    if problems:
        raise InputError(problems)
    return (None if named else given[0]), given[-1]


def _source(catalog: Catalog, model: str | None, options: dict[str, Any]) -> ModelSource:
    return model_source(catalog, model, options["config"], options["gguf"])


def _placements(plans: list[HostPlan], model: str | None, options: dict[str, Any]) -> list[Placement]:
    """Every host's answer, with the model's facts from its own catalogue. Raises InputError where none knows it."""
    placements: list[Placement] = []
    unknown: list[InputError] = []
    for plan in plans:
        catalog = load_catalog(plan.host.catalog)
        try:
            question = _question(_source(catalog, model, options), options)
        except InputError as error:
            unknown.append(error)
            placements.append(Placement(plan.host, plan.gpu, reason=error.problems[0].message))
            continue
        placements.append(place(plan, catalog, question))
    if len(unknown) == len(plans):
        raise unknown[0]
    return placements


def _question(source: ModelSource, options: dict[str, Any]) -> Question:
    listed = source.listed
    return Question(
        model=source.name,
        shape=source.shape,
        formats=source.offered("vllm") if listed is not None else (),
        files=source.files,
        file_parts=source.file_parts,
        has_checkpoint=source.runtime is None and (listed is None or bool(listed.checkpoints) or not listed.gguf),
        runtime=options["runtime"],
        quantization=options["quantization"],
        kv_cache_dtype=options["kv_cache_dtype"].lower(),
        max_model_len=options["max_model_len"],
        concurrency=options["concurrency"],
        avg_tokens=options["avg_tokens"],
    )


def _show(name: str, placements: tuple[Placement, ...]) -> None:
    fitting = [placement for placement in placements if placement.fits]
    console.print(
        f"[bold]{escape(name)}[/bold]  {len(fitting)} of {len(placements)} hosts could run it", soft_wrap=True
    )
    if fitting:
        # Wider than a pipe's 80 columns, because a host is one line.
        Console(stderr=True, highlight=False, width=max(console.width, _WIDTH)).print(_table(fitting))
    for placement in placements:
        if not placement.fits:
            text = f"{placement.host.name} ({_cards(placement)}): {placement.reason}"
            console.print(f"[red]no[/red]  {escape(text)}", soft_wrap=True)
        elif placement.reason and placement.reason != NO_GPU_FREE:
            console.print(f"    {escape(f'{placement.host.name}: {placement.reason}')}", soft_wrap=True)
    for warning in dict.fromkeys(
        text for each in fitting if each.best for text in each.best.warnings if "GGUF" in text
    ):
        console.print(f"[yellow]warning[/yellow] {escape(warning)}", soft_wrap=True)


def _table(placements: list[Placement]) -> Table:
    table = Table(box=None, pad_edge=False)
    for header in ("host", "GPUs", "runtime", "quantization", "split"):
        table.add_column(header, no_wrap=True)
    for header in ("max_model_len", "at once", "KV tokens"):
        table.add_column(header, justify="right", no_wrap=True)
    for header in ("fewest", "planned", "beside it"):
        table.add_column(header, no_wrap=True)
    for placement in placements:
        best, fewest = placement.best, placement.fewest
        if best is None or fewest is None:
            continue
        table.add_row(
            escape(placement.host.name),
            f"{best.request.gpus} of {_cards(placement)}" if placement.host.gpu_count > 1 else placement.gpu.tag,
            f"{best.request.runtime} {best.request.version}",
            best.quantization,
            _split(best),
            str(best.max_model_len),
            f"{best.max_concurrency:.1f}",
            str(best.kv_cache_tokens),
            f"{fewest.request.gpus}: {fewest.max_model_len} x {fewest.max_concurrency:.1f}",
            escape(_planned(placement)),
            _beside(placement),
        )
    return table


def _cards(placement: Placement) -> str:
    count = placement.host.gpu_count
    return f"{count} x {placement.gpu.tag}" if count > 1 else placement.gpu.tag


def _split(sizing: Sizing) -> str:
    if sizing.offload is not None and 0 < sizing.offload.gpu_layers < sizing.offload.layers:
        return f"{sizing.offload.gpu_layers} of {sizing.offload.layers} layers"
    parallel = sizing.parallel
    parts = [f"{name}{size}" for name, size in (("TP", parallel.tensor), ("PP", parallel.pipeline)) if size > 1]
    return " x ".join(parts) or "-"


def _planned(placement: Placement) -> str:
    if placement.used_mib:
        return f"{placement.used_mib} MiB of RAM"
    numbers: dict[str, list[int]] = {}
    for number, names in placement.taken:
        for name in names:
            numbers.setdefault(name, []).append(number)
    return "; ".join(f"{name} on {_span(gpus)}" for name, gpus in numbers.items()) or "nothing"


def _span(numbers: list[int]) -> str:
    """0, 1, 2, 3 as 0-3; what has gaps as it is."""
    whole = numbers == list(range(numbers[0], numbers[-1] + 1)) and len(numbers) > 1
    return f"{numbers[0]}-{numbers[-1]}" if whole else ", ".join(str(number) for number in numbers)


def _beside(placement: Placement) -> str:
    beside = placement.beside
    if beside is None:
        return "no GPU free" if placement.reason == NO_GPU_FREE else "no"
    return f"yes, {beside.request.gpus}: {beside.max_model_len} x {beside.max_concurrency:.1f}"
