"""`rackserve size`: one model on one kind of GPU: does it fit, with which flags, and why. Offline, no inventory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click
from rich.markup import escape

from rackserve.catalog.loader import Catalog, load_catalog
from rackserve.cli.common import MEMORY_MIB, console, gpu_of, in_words, print_json
from rackserve.cli.model_source import ModelSource, model_source
from rackserve.domain.errors import InputError, Problem
from rackserve.domain.gpu import Gpu
from rackserve.domain.policy import DEFAULT_CEILING
from rackserve.domain.service import RuntimeName
from rackserve.planning.alternatives import alternatives
from rackserve.planning.engine_facts import engine_for
from rackserve.planning.fit import FIRST_PORT
from rackserve.planning.gpu_fit import gpu_mib
from rackserve.planning.instance import GGUF_RUNTIMES, size_instance
from rackserve.planning.request import Request
from rackserve.planning.runtime_choice import default_runtime
from rackserve.planning.sized import Sizing
from rackserve.planning.stack import Stack, StackRequest, solve
from rackserve.report.bars import gpu_bar
from rackserve.runtimes.commands import argv
from rackserve.runtimes.endpoint import Endpoint, endpoint_of, gguf_name

RUNTIMES: tuple[str, ...] = get_args(RuntimeName)
# llama.cpp splits layers over GPUs by itself, and has no share of memory that could be stated.
_NOT_FOR_GGUF = {
    "utilization": "--gpu-memory-utilization",
    "tensor_parallel": "--tensor-parallel",
    "pipeline_parallel": "--pipeline-parallel",
}


@click.command()
@click.option("--model", help="A model of the catalogue.")
@click.option("--config", type=click.Path(path_type=Path), help="A model's own config.json.")
@click.option("--gguf", type=click.Path(path_type=Path), help="A GGUF file, for llama.cpp, Ollama and LM Studio.")
@click.option("--gpu", "tag", required=True, help="GPU tag of the catalogue.")
@click.option("--gpus", type=click.IntRange(1, 4096), default=1, show_default=True, help="GPUs of one instance.")
@click.option("--runtime", type=click.Choice(RUNTIMES), help="Default: vllm where it runs, else llama.cpp.")
@click.option("--runtime-version", help="Default: the newest of the catalogue that suits the GPU.")
@click.option("--quantization", help="Default: as the checkpoint is, or for a named model what the GPU multiplies.")
@click.option("--kv-cache-dtype", default="auto", show_default=True)
@click.option("--max-model-len", type=click.IntRange(1, 2**31), help="Tokens of prompt plus completion.")
@click.option("--concurrency", type=click.IntRange(1, 65536), help="Requests at the peak.")
@click.option("--avg-tokens", type=click.IntRange(1, 2**31), help="Tokens of an average request.")
@click.option("--gpu-memory-utilization", "utilization", type=float, help="The runtime's own memory share, 0 to 1.")
@click.option(
    "--memory-ceiling",
    "ceiling",
    type=float,
    default=DEFAULT_CEILING,
    show_default=True,
    help="Share of each GPU to use.",
)
@click.option("--tensor-parallel", type=click.IntRange(1, 4096))
@click.option("--pipeline-parallel", type=click.IntRange(1, 4096))
@click.option("--max-num-batched-tokens", "batched_tokens", type=click.IntRange(1, 2**31), help="Tokens of one step.")
@click.option("--memory-mib", type=MEMORY_MIB, help="RAM of the host: unified memory, offload, tag cpu.")
@click.option("--catalog", "extra", multiple=True, help="Your own catalogue file or folder; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def size(tag: str, extra: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Say whether a model fits on GPUs of a tag, with which flags, and why; exit 1 if it does not."""
    try:
        catalog = load_catalog(extra)
        source, gpu = _inputs(catalog, tag, options)
        request = _request(catalog, source, gpu, options)
    except InputError as error:
        if as_json:
            print_json({"fits": False, "errors": [problem.as_dict() for problem in error.problems]})
        raise
    sized = request if isinstance(request, str) else size_instance(request)
    if isinstance(sized, str):
        _refuse(sized, as_json=as_json)
    else:
        if not sized.fits and not isinstance(request, str):
            sized = sized.with_alternatives(alternatives(request, catalog))
        _show(sized, source, as_json=as_json)
    raise click.exceptions.Exit(0 if isinstance(sized, Sizing) and sized.fits else 1)


def _inputs(catalog: Catalog, tag: str, options: dict[str, Any]) -> tuple[ModelSource, Gpu]:
    """Model and GPU. Raises InputError with everything that is wrong with the options."""
    problems: list[Problem] = []
    source = None
    try:
        source = model_source(catalog, options["model"], options["config"], options["gguf"])
    except InputError as error:
        problems.extend(error.problems)
    gpu, found = gpu_of(catalog, tag, options)
    problems.extend(found)
    problems.extend(
        Problem(f"expected more than 0 and at most 1, found {options[key]}", key=name)
        for key, name in (("utilization", "--gpu-memory-utilization"), ("ceiling", "--memory-ceiling"))
        if options[key] is not None and not 0 < options[key] <= 1
    )
    runtime = _runtime(source, gpu, options)
    if runtime in GGUF_RUNTIMES:
        problems.extend(
            Problem(f"has no meaning for {runtime}", key=name, hint="leave it out")
            for key, name in _NOT_FOR_GGUF.items()
            if options[key] is not None
        )
    if problems or source is None or gpu is None:
        raise InputError(problems)
    return source, gpu


def _runtime(source: ModelSource | None, gpu: Gpu | None, options: dict[str, Any]) -> str:
    """The runtime that is asked for or the only one that can; else the GPU's default, empty where that is not known."""
    forced = options["runtime"] or (source.runtime if source is not None else None)
    return forced or (default_runtime(gpu) if gpu is not None else "")


def _request(catalog: Catalog, source: ModelSource, gpu: Gpu, options: dict[str, Any]) -> Request | str:
    """The sizing request, or the sentence that says why GPU and runtime do not go together."""
    runtime = _runtime(source, gpu, options)
    # All cards are alike, so one says for all of them which versions run.
    cards = (gpu,) if gpu.vendor != "none" else ()
    wanted = (runtime, options["runtime_version"])
    solved = solve(StackRequest(gpu.tag, cards, runtimes=(wanted,)), catalog)
    if not isinstance(solved, Stack):
        return in_words(solved)
    version = solved.runtimes[runtime].version
    return Request(
        model=source.name,
        shape=source.shape,
        gpu=gpu,
        total_mib=gpu_mib(gpu, options["memory_mib"]) if gpu.vendor != "none" else options["memory_mib"],
        runtime=runtime,
        version=version,
        engine=engine_for(catalog, runtime, version),
        gpus=options["gpus"],
        quantization=options["quantization"] or "",
        offered=source.offered(runtime),
        files=source.files,
        file_parts=source.file_parts,
        kv_cache_dtype=options["kv_cache_dtype"].lower(),
        max_model_len=options["max_model_len"],
        concurrency=options["concurrency"],
        avg_tokens=options["avg_tokens"],
        utilization=options["utilization"],
        tensor_parallel=options["tensor_parallel"],
        pipeline_parallel=options["pipeline_parallel"],
        batched_tokens=options["batched_tokens"],
        ceiling=options["ceiling"],
        host_mib=options["memory_mib"],
        host_ceiling=options["ceiling"],
    )


def _refuse(reason: str, *, as_json: bool) -> None:
    if as_json:
        errors = [Problem(reason).as_dict()]
        print_json({"fits": False, "reasons": [reason], "warnings": [], "alternatives": [], "errors": errors})
    console.print(f"[red]no[/red]  {escape(reason)}", soft_wrap=True)


def _endpoint(sized: Sizing, source: ModelSource) -> Endpoint:
    if source.listed is not None:
        return endpoint_of(sized, source.name, source.listed, "127.0.0.1", FIRST_PORT)
    if sized.offload is not None:
        reference = source.reference if source.runtime is not None else gguf_name(source.name, sized)
    else:
        # A checkpoint in another format is a folder of its own; this one would be loaded as it is.
        other = sized.weight_format and not sized.converted
        reference = f"{source.reference}-{sized.quantization}" if other else source.reference
    return Endpoint(source.name, reference, port=FIRST_PORT)


def _show(sized: Sizing, source: ModelSource, *, as_json: bool) -> None:
    command = argv(sized, _endpoint(sized, source))
    if as_json:
        print_json({**sized.as_dict(), "argv": list(command)})
        return
    request = sized.request
    verdict = "[green]yes[/green]" if sized.fits else "[red]no[/red] "
    cards = f"{request.gpus} x {request.gpu.name}" if request.gpus > 1 else request.gpu.name
    line = f"{verdict}  {escape(request.model)} on {escape(cards)} with {request.runtime} {request.version}"
    console.print(line if sized.fits else f"{line}: {escape(sized.short)}", soft_wrap=True)
    console.print(gpu_bar(sized), soft_wrap=True)
    for reason in sized.all_reasons():
        console.print(f"      {escape(reason)}", soft_wrap=True)
    for warning in sized.warnings:
        console.print(f"      [yellow]warning[/yellow] {escape(warning)}", soft_wrap=True)
    for alternative in sized.alternatives:
        console.print(f"      [green]would fit[/green] {escape(alternative.text)}", soft_wrap=True)
    if sized.fits:
        console.print(f"      {escape(' '.join(command))}", soft_wrap=True)
