"""`rackserve size`: one model on one kind of GPU: does it fit, with which flags, and why. Offline, no inventory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from rackserve.catalog.loader import Catalog, load_catalog
from rackserve.cli.common import console, print_json
from rackserve.cli.model_source import ModelSource, model_source
from rackserve.domain.errors import InputError, Problem, suggestion
from rackserve.domain.gpu import Gpu
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
from rackserve.runtimes.commands import Endpoint, argv, endpoint_of, gguf_name

RUNTIMES = ("vllm", "sglang", "tensorrt-llm", "llama.cpp", "ollama", "lmstudio")


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
    "--memory-ceiling", "ceiling", type=float, default=0.85, show_default=True, help="Share of each GPU to use."
)
@click.option("--tensor-parallel", type=click.IntRange(1, 4096))
@click.option("--pipeline-parallel", type=click.IntRange(1, 4096))
@click.option("--max-num-batched-tokens", "batched_tokens", type=click.IntRange(1, 2**31), help="Tokens of one step.")
@click.option("--memory-mib", type=click.IntRange(64), help="RAM of the host: unified memory, offload, tag cpu.")
@click.option("--catalog", "extra", multiple=True, help="Your own catalogue file or folder; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def size(tag: str, extra: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Say whether a model fits on GPUs of a tag, with which flags, and why; exit 1 if it does not."""
    try:
        catalog = load_catalog(extra)
        source = model_source(catalog, options["model"], options["config"], options["gguf"])
        request = _request(catalog, source, tag, options)
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


def _request(catalog: Catalog, source: ModelSource, tag: str, options: dict[str, Any]) -> Request | str:
    """The sizing request, or the sentence that says why GPU and runtime do not go together."""
    gpu = _gpu(catalog, tag, options)
    problems = [
        Problem(f"expected more than 0 and at most 1, found {options[key]}", key=name)
        for key, name in (("utilization", "--gpu-memory-utilization"), ("ceiling", "--memory-ceiling"))
        if options[key] is not None and not 0 < options[key] <= 1
    ]
    if problems:
        raise InputError(problems)
    runtime = options["runtime"] or source.runtime or default_runtime(gpu)
    cards = (gpu,) if gpu.vendor != "none" else ()
    wanted = (runtime, options["runtime_version"])
    solved = solve(StackRequest(tag, cards * min(options["gpus"], 64), runtimes=(wanted,)), catalog)
    if not isinstance(solved, Stack):
        return "; ".join(f"{problem.message}{f' ({problem.hint})' if problem.hint else ''}" for problem in solved)
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
        kv_cache_dtype=options["kv_cache_dtype"],
        max_model_len=options["max_model_len"],
        concurrency=options["concurrency"],
        avg_tokens=options["avg_tokens"],
        utilization=options["utilization"],
        tensor_parallel=options["tensor_parallel"],
        pipeline_parallel=options["pipeline_parallel"],
        batched_tokens=options["batched_tokens"],
        ceiling=options["ceiling"],
        host_mib=options["memory_mib"],
    )


def _gpu(catalog: Catalog, tag: str, options: dict[str, Any]) -> Gpu:
    gpu = catalog.gpus.get(tag)
    if gpu is None:
        hint = suggestion(tag, catalog.gpus)
        raise InputError([Problem(f"{tag} is not in the catalogue", key="--gpu", hint=hint)])
    problems = []
    if not gpu.vram_mib and options["memory_mib"] is None:
        problems.append(Problem(f"is needed: {gpu.name} serves from the host's memory", key="--memory-mib"))
    if not gpu.vram_mib and options["gpus"] > 1:
        problems.append(Problem(f"{options['gpus']}: {gpu.name} has one memory, that of the host", key="--gpus"))
    if gpu.vendor == "none" and options["runtime"] not in {None, *GGUF_RUNTIMES}:
        problems.append(Problem(f"{options['runtime']} needs a GPU", key="--runtime"))
    if problems:
        raise InputError(problems)
    return gpu


def _refuse(reason: str, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {"fits": False, "reasons": [reason], "warnings": [], "alternatives": [], "errors": [{"message": reason}]}
        )
    console.print(f"[red]no[/red]  {escape(reason)}", soft_wrap=True)


def _endpoint(sized: Sizing, source: ModelSource) -> Endpoint:
    if source.listed is not None:
        return endpoint_of(sized, source.name, source.listed, "127.0.0.1", FIRST_PORT)
    has_file = sized.offload is None or source.runtime is not None
    reference = source.reference if has_file else gguf_name(source.name, sized)
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
