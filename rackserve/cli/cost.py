"""`rackserve cost`: how fast GPUs can serve a model at most, what that costs, and when an API is cheaper. Offline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from rackserve.catalog.loader import Catalog, load_catalog
from rackserve.cli.common import MEMORY_MIB, console, gpu_of, in_words, print_json
from rackserve.cli.model_source import ModelSource, model_source
from rackserve.cli.size import RUNTIMES
from rackserve.domain.errors import InputError, Problem
from rackserve.domain.gpu import Gpu
from rackserve.domain.policy import KV_HEADROOM
from rackserve.planning.cost import DEFAULT_EFFICIENCY, Costs, Load, Prices, advice, costs
from rackserve.planning.gpu_fit import gpu_mib
from rackserve.planning.instance import size_instance
from rackserve.planning.question import Question
from rackserve.planning.request import Request
from rackserve.planning.runtime_choice import default_runtime
from rackserve.planning.sized import Sizing
from rackserve.planning.stack import Stack, StackRequest, solve
from rackserve.planning.throughput import Decode, bound_notes, decode_bound

# Nobody charges more in any currency, and it keeps infinity out.
_HIGHEST_PRICE = 10**12
_PRICES = ("gpu_hour", "api_input", "api_output", "power_watts", "kwh_price", "host_month")
_NOTE = (
    "upper bounds from memory bandwidth alone: weights and KV cache read for each token; prompts, communication and "
    "arithmetic come on top"
)


@dataclass(frozen=True, slots=True)
class _Answer:
    """Everything to show."""

    sizing: Sizing
    single: Decode
    planned: Decode
    efficiency: float
    load: Load
    costs: Costs
    currency: str

    @property
    def advice(self) -> tuple[str, ...]:
        return advice(self.costs, self.planned.tokens_per_s, self.efficiency, self.load, self.currency)


@click.command()
@click.option("--model", help="A model of the catalogue.")
@click.option("--config", type=click.Path(path_type=Path), help="A model's own config.json.")
@click.option("--gguf", type=click.Path(path_type=Path), help="A GGUF file, for llama.cpp, Ollama and LM Studio.")
@click.option("--gpu", "tag", help="GPU tag of the catalogue.")
@click.option("--gpus", type=click.IntRange(1, 64), default=1, show_default=True, help="GPUs of one instance.")
@click.option("--runtime", type=click.Choice(RUNTIMES), help="Default: vllm where it runs, else llama.cpp.")
@click.option("--quantization", default="", help="Default: as the checkpoint is, or what the GPU multiplies.")
@click.option("--kv-cache-dtype", default="auto", show_default=True)
@click.option("--max-model-len", type=click.IntRange(1, 2**31), help="Tokens of prompt plus completion.")
@click.option("--concurrency", type=click.IntRange(1, 65536), help="Requests at once. Default: as many as fit.")
@click.option("--avg-prompt-tokens", "prompt", type=click.IntRange(1, 2**31), default=1000, show_default=True)
@click.option("--avg-completion-tokens", "completion", type=click.IntRange(1, 2**31), default=300, show_default=True)
@click.option("--memory-mib", type=MEMORY_MIB, help="RAM of the host: unified memory, tag cpu.")
@click.option("--gpu-hour", type=float, help="Price of an hour of one GPU, hired or written off. Required.")
@click.option("--power-watts", type=float, help="Watts of the whole host under load; needs --kwh-price.")
@click.option("--kwh-price", type=float, help="Price of a kWh; needs --power-watts.")
@click.option("--host-month", type=float, help="Price of a month of the host: rack, network, hands.")
@click.option("--api-input", type=float, help="The API's price of a million prompt tokens. Required.")
@click.option("--api-output", type=float, help="The API's price of a million completion tokens. Required.")
@click.option(
    "--efficiency",
    type=float,
    default=DEFAULT_EFFICIENCY,
    show_default=True,
    help="Share of the bound that is reached in practice, prompts included. Measure yours.",
)
@click.option("--currency", default="", help="Only shown.")
@click.option("--catalog", "extra", multiple=True, help="Your own catalogue file or folder; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def cost(tag: str | None, extra: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Say what a million tokens cost on GPUs of a tag, and from which load on that is less than an API.

    All prices are yours. Exit 1 if the model does not fit or the GPU's bandwidth is not known.
    """
    try:
        catalog = load_catalog(extra)
        source, gpu = _inputs(catalog, tag, options)
        answer = _answer(catalog, source, gpu, options)
    except InputError as error:
        if as_json:
            print_json({"errors": [problem.as_dict() for problem in error.problems]})
        raise
    if isinstance(answer, str):
        if as_json:
            print_json({"model": source.name, "gpu": gpu.tag, "errors": [Problem(answer).as_dict()]})
        console.print(f"[red]no[/red]  {escape(answer)}", soft_wrap=True)
        raise click.exceptions.Exit(1)
    if as_json:
        print_json(_object(answer))
    else:
        _show(answer)


def _inputs(catalog: Catalog, tag: str | None, options: dict[str, Any]) -> tuple[ModelSource, Gpu]:
    """Model and GPU. Raises InputError with everything that is wrong with the options."""
    problems: list[Problem] = []
    source = None
    try:
        source = model_source(catalog, options["model"], options["config"], options["gguf"])
    except InputError as error:
        problems.extend(error.problems)
    gpu, found = gpu_of(catalog, tag, options)
    problems.extend(found)
    problems.extend(_number_problems(options))
    if problems or source is None or gpu is None:
        raise InputError(problems)
    return source, gpu


def _number_problems(options: dict[str, Any]) -> list[Problem]:
    needed = {"gpu_hour": "price of an hour of one GPU", "api_input": "the API's price of a million prompt tokens"}
    needed["api_output"] = "the API's price of a million completion tokens"
    problems = [
        Problem(f"is needed: {meaning}, there are no built-in prices", key=_option(name))
        for name, meaning in needed.items()
        if options[name] is None
    ]
    for one, other in (("power_watts", "kwh_price"), ("kwh_price", "power_watts")):
        if options[one] is None and options[other] is not None:
            problems.append(Problem(f"is needed: {_option(other)} is given", key=_option(one)))
    # `0 <=` is false for NaN too.
    problems.extend(
        Problem(f"expected 0 to {_HIGHEST_PRICE}, found {options[name]}", key=_option(name))
        for name in _PRICES
        if options[name] is not None and not 0 <= options[name] <= _HIGHEST_PRICE
    )
    if not 0 < options["efficiency"] <= 1:
        problems.append(
            Problem(f"expected more than 0 and at most 1, found {options['efficiency']}", key="--efficiency")
        )
    tokens, limit = options["prompt"] + options["completion"], options["max_model_len"]
    if limit is not None and tokens * KV_HEADROOM > limit:
        message = f"{tokens} tokens of prompt and completion x {KV_HEADROOM} is more than --max-model-len {limit}"
        problems.append(Problem(message, key="--avg-prompt-tokens"))
    return problems


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _answer(catalog: Catalog, source: ModelSource, gpu: Gpu, options: dict[str, Any]) -> _Answer | str:
    """Sized, bounded and priced; or why not."""
    request = _request(catalog, source, gpu, options)
    sizing = size_instance(request) if isinstance(request, Request) else request
    if isinstance(sizing, str):
        return sizing
    if not sizing.fits:
        return f"{source.name} ({sizing.quantization}) does not fit: {sizing.short}"
    load = Load(options["prompt"], options["completion"])
    single, planned = (decode_bound(sizing, batch, load.context) for batch in (1, _batch(sizing, load)))
    if isinstance(single, str) or isinstance(planned, str):
        return f"no bound on the speed: {single if isinstance(single, str) else planned}"
    prices = Prices(
        gpu_hour=options["gpu_hour"],
        api_input=options["api_input"],
        api_output=options["api_output"],
        watts=options["power_watts"] or 0.0,
        kwh=options["kwh_price"] or 0.0,
        host_month=options["host_month"] or 0.0,
    )
    found = costs(planned.tokens_per_s, options["efficiency"], load, prices, options["gpus"])
    return _Answer(sizing, single, planned, options["efficiency"], load, found, options["currency"])


def _request(catalog: Catalog, source: ModelSource, gpu: Gpu, options: dict[str, Any]) -> Request | str:
    listed = source.listed
    has_checkpoint = source.runtime is None and (listed is None or bool(listed.checkpoints) or not listed.gguf)
    runtime = options["runtime"] or source.runtime or default_runtime(gpu, has_checkpoint=has_checkpoint)
    # All cards are alike, so one says for all of them which versions run.
    cards = (gpu,) if gpu.vendor != "none" else ()
    solved = solve(StackRequest(gpu.tag, cards, runtimes=((runtime, None),)), catalog)
    if not isinstance(solved, Stack):
        return in_words(solved)
    question = Question(
        model=source.name,
        shape=source.shape,
        formats=source.offered("vllm") if listed is not None else (),
        files=source.files,
        file_parts=source.file_parts,
        quantization=options["quantization"],
        kv_cache_dtype=options["kv_cache_dtype"].lower(),
        max_model_len=options["max_model_len"],
        concurrency=options["concurrency"],
        avg_tokens=options["prompt"] + options["completion"],
    )
    total = gpu_mib(gpu, options["memory_mib"]) if gpu.vendor != "none" else options["memory_mib"]
    request = question.request(gpu, total, runtime, solved.runtimes[runtime].version, catalog)
    return replace(request, gpus=options["gpus"], host_mib=options["memory_mib"])


def _batch(sizing: Sizing, load: Load) -> int:
    """Requests at once: those asked for, else those whose tokens the KV cache holds with headroom, within the limit."""
    if sizing.request.concurrency is not None:
        return sizing.request.concurrency
    return max(1, min(sizing.max_num_seqs, int(sizing.kv_cache_tokens / (KV_HEADROOM * load.tokens))))


def _object(answer: _Answer) -> dict[str, object]:
    sizing = answer.sizing
    numbers = sizing.as_dict()
    kept = ("model", "runtime", "runtime_version", "gpu", "gpus", "quantization", "max_model_len")
    return {
        **{key: numbers[key] for key in (*kept, "tensor_parallel", "pipeline_parallel")},
        "concurrency": answer.planned.batch,
        "avg_prompt_tokens": answer.load.prompt,
        "avg_completion_tokens": answer.load.completion,
        "decode_tokens_per_s_bound": round(answer.planned.tokens_per_s, 2),
        "decode_tokens_per_s_bound_batch_1": round(answer.single.tokens_per_s, 2),
        "decode": [answer.single.as_dict(), answer.planned.as_dict()],
        "bound_note": "; ".join((_NOTE, *bound_notes(answer.sizing, answer.planned))),
        "efficiency": answer.efficiency,
        "currency": answer.currency,
        **answer.costs.as_dict(),
        "advice": list(answer.advice),
        "errors": [],
    }


def _show(answer: _Answer) -> None:
    request = answer.sizing.request
    cards = f"{request.gpus} x {request.gpu.name}" if request.gpus > 1 else request.gpu.name
    title = f"{request.model} ({answer.sizing.quantization}) on {cards} with {request.runtime} {request.version}"
    money = f" {answer.currency}" if answer.currency else ""
    load, found = answer.load, answer.costs
    console.print(f"[bold]{escape(title)}[/bold]", soft_wrap=True)
    for note in (_NOTE, *bound_notes(answer.sizing, answer.planned)):
        console.print(f"  {note}", soft_wrap=True)
    for point in (answer.single, answer.planned)[: 2 if answer.planned.batch > 1 else 1]:
        read = f"{point.weight_bytes / 1e9:.2f} GB of weights and {point.kv_bytes / 1e9:.2f} GB of KV cache"
        speed = f"at most {point.tokens_per_s:,.0f} tokens/s ({point.tokens_per_s / point.batch:.1f} each)"
        console.print(
            f"  {point.batch} at once: {speed}, {read} a step and GPU at {request.gpu.bandwidth_gb_s:g} GB/s",
            soft_wrap=True,
        )
    mix = f"{load.prompt} tokens of prompt and {load.completion} of completion"
    console.print(f"  {mix}; {answer.efficiency:.0%} of the bound assumed", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for header in ("utilisation", "tokens/s", "requests/s", escape(f"per 10^6 tokens{money}")):
        table.add_column(header, justify="right")
    for level in found.levels:
        cells = (f"{level.utilization:.0%}", f"{level.completion_tokens_per_s:,.0f}", f"{level.requests_per_s:.2f}")
        table.add_row(*cells, f"{level.cost_per_mtok:,.3f}")
    console.print(table)
    api = f"the API takes {found.api_per_mtok:.3f}{money} per 10^6 tokens of this mix"
    console.print(f"  {escape(f'{found.per_hour:.2f}{money} an hour; {api}')}", soft_wrap=True)
    for sentence in answer.advice:
        console.print(f"  {escape(sentence)}", soft_wrap=True)
