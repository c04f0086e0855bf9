"""What would fit instead, the least change first. Each is planned like the request itself before it is offered."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from rackserve.catalog.loader import Catalog
from rackserve.catalog.shapes import shape_of
from rackserve.domain.policy import HIGHEST_CEILING
from rackserve.planning.engine_facts import engine_for
from rackserve.planning.instance import GGUF_RUNTIMES, size_instance
from rackserve.planning.request import Request
from rackserve.planning.sized import Alternative, Sizing
from rackserve.planning.stack import Stack, StackRequest, solve

_MOST_GPUS = 16
# Windows shorter than this serve nobody; offering them would be no help.
_SHORTEST_USEFUL = 1024
_OTHER_MODELS = 3
_UNSTATED = 65
_KV_TYPES = {"fp8": ("auto", "bf16"), "q8_0": ("auto", "f16"), "q4_0": ("auto", "f16", "q8_0")}


def alternatives(request: Request, catalog: Catalog) -> tuple[Alternative, ...]:
    """Changes with which it fits, at most one per setting."""
    found = [
        *_shorter(request),
        *_fewer(request),
        *_kv_types(request),
        *_quantizations(request),
        *_higher_ceiling(request),
        *_host_memory(request),
        *_more_gpus(request),
        *_other_gpus(request, catalog),
        *_other_models(request, catalog),
    ]
    return tuple(found)


def _fits(request: Request) -> Sizing | None:
    """The sizing, if it fits with a context that is of use where its length is ours to choose."""
    sized = size_instance(request)
    if not isinstance(sized, Sizing) or not sized.fits:
        return None
    useful = min(_SHORTEST_USEFUL, request.shape.context_length // 2)
    return sized if request.max_model_len or request.avg_tokens or sized.max_model_len >= useful else None


def _shorter(request: Request) -> Iterator[Alternative]:
    if request.max_model_len is None:
        return
    sized = _fits(replace(request, max_model_len=None))
    if sized is not None and sized.max_model_len < request.max_model_len:
        yield Alternative((("max_model_len", sized.max_model_len),), f"max_model_len {sized.max_model_len}")


def _fewer(request: Request) -> Iterator[Alternative]:
    """The most concurrent requests that fit, by halving the interval; from 64 down where nobody said how many."""
    low, high = 0, request.concurrency or _UNSTATED
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(replace(request, concurrency=middle)) else (low, middle)
    if low:
        yield Alternative((("concurrency", low),), f"concurrency {low}")


def _kv_types(request: Request) -> Iterator[Alternative]:
    for smaller, larger in _KV_TYPES.items():
        suits = (smaller == "fp8") != (request.runtime in GGUF_RUNTIMES)
        if suits and request.kv_cache_dtype in larger and _fits(replace(request, kv_cache_dtype=smaller)):
            yield Alternative((("kv_cache_dtype", smaller),), f"kv_cache_dtype {smaller}")
            return


def _quantizations(request: Request) -> Iterator[Alternative]:
    if request.shape.quantization:
        return
    names = (
        tuple(name for name, _ in sorted(request.files, key=lambda file: -file[1]))
        if request.runtime in GGUF_RUNTIMES
        else ("fp8", "int8", "awq", "gptq", "nvfp4")
    )
    for name in names:
        if name == request.quantization:
            continue
        sized = _fits(replace(request, quantization=name))
        if sized is not None and sized.quantization != request.quantization:
            made = request.offered or sized.converted or request.runtime in GGUF_RUNTIMES
            text = f"quantization {name}" if made else f"quantization {name}, with a checkpoint in it"
            yield Alternative((("quantization", name),), text)
            return


def _higher_ceiling(request: Request) -> Iterator[Alternative]:
    stated = request.utilization if request.utilization is not None else request.ceiling
    if stated >= HIGHEST_CEILING:
        return
    if request.runtime in GGUF_RUNTIMES or request.utilization is None:
        if _fits(replace(request, ceiling=HIGHEST_CEILING)):
            yield Alternative((("memory_ceiling", HIGHEST_CEILING),), f"memory_ceiling {HIGHEST_CEILING}")
    elif _fits(replace(request, utilization=HIGHEST_CEILING)):
        text = f"gpu_memory_utilization {HIGHEST_CEILING}"
        yield Alternative((("gpu_memory_utilization", HIGHEST_CEILING),), text)


def _host_memory(request: Request) -> Iterator[Alternative]:
    """Layers left in the host's memory, where the runtime can and too little of it is stated, or nothing."""
    if request.runtime not in GGUF_RUNTIMES or request.gpu.vendor in {"none", "apple"}:
        return
    sized = size_instance(request)
    if not isinstance(sized, Sizing) or sized.offload is None:
        return
    needed = math.ceil(sized.offload.host_bytes / request.host_ceiling / 1024**2)
    helped = _fits(replace(request, host_mib=needed, max_model_len=sized.max_model_len))
    if helped is not None and helped.offload is not None:
        layers = f"{helped.offload.layers - helped.offload.gpu_layers} of {helped.offload.layers} layers"
        text = f"memory_mib {needed}: {layers} on the CPU, at a fraction of the speed"
        yield Alternative((("memory_mib", needed),), text)


def _more_gpus(request: Request) -> Iterator[Alternative]:
    if request.gpu.unified_share or request.gpu.vendor == "none":
        return
    count = request.gpus * 2
    while count <= _MOST_GPUS:
        if _fits(replace(request, gpus=count)):
            yield Alternative((("gpus", count),), f"{count} x {request.gpu.tag}")
            return
        split = _fits(replace(request, gpus=count, tensor_parallel=None, pipeline_parallel=None))
        if split is not None:
            tensor, pipeline = split.parallel.tensor, split.parallel.pipeline
            change = (("gpus", count), ("tensor_parallel", tensor), ("pipeline_parallel", pipeline))
            text = f"{count} x {request.gpu.tag} with tensor_parallel {tensor}, pipeline_parallel {pipeline}"
            yield Alternative(change, text)
            return
        count *= 2


def _other_gpus(request: Request, catalog: Catalog) -> Iterator[Alternative]:
    """The smallest listed card of the same vendor on which as many of them are enough."""
    larger = sorted(
        (
            gpu
            for gpu in catalog.gpus.values()
            if gpu.vendor == request.gpu.vendor and gpu.usable_mib > request.total_mib
        ),
        key=lambda gpu: (gpu.usable_mib, gpu.tag),
    )
    for gpu in larger:
        wanted = StackRequest(gpu.tag, (gpu,), runtimes=((request.runtime, request.version),))
        if isinstance(solve(wanted, catalog), Stack) and _fits(replace(request, gpu=gpu, total_mib=gpu.usable_mib)):
            count = f"{request.gpus} x " if request.gpus > 1 else ""
            yield Alternative((("gpu", gpu.tag),), f"{count}{gpu.tag} instead of {request.gpu.tag}")
            return


def _other_models(request: Request, catalog: Catalog) -> Iterator[Alternative]:
    """The largest listed model below this one that fits with the same settings."""
    asked = request.shape.parameters
    smaller = sorted(
        (model for model in catalog.models.values() if shape_of(model).parameters < asked),
        key=lambda model: -shape_of(model).parameters,
    )
    for model in smaller[:_OTHER_MODELS]:
        files = tuple((gguf.quantization, gguf.size_bytes) for gguf in model.gguf)
        if request.runtime in GGUF_RUNTIMES and not files:
            continue
        names = tuple(checkpoint.quantization for checkpoint in model.checkpoints) or ("none",)
        other = replace(
            request,
            model=model.name,
            shape=shape_of(model),
            engine=request.engine or engine_for(catalog, request.runtime, request.version),
            quantization="",
            offered=tuple(name for name, _ in files) if request.runtime in GGUF_RUNTIMES else names,
            files=files,
        )
        if _fits(other):
            yield Alternative((("model", model.name),), f"model {model.name}")
            return
