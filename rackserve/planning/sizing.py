"""Size one instance of a paged engine (vLLM, SGLang, TensorRT-LLM) on a group of equal GPUs, every number explained.

Everything is pure and offline. What cannot be asked for at all comes back as text; what can be but does not fit
comes back as a Sizing that says by how much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from rackserve.domain.engine import BatchTier, Engine
from rackserve.domain.policy import KV_HEADROOM, USABLE_SHARE
from rackserve.domain.shape import StateCache
from rackserve.planning import budget, quantize
from rackserve.planning.budget import Budget, Steps
from rackserve.planning.kv_cache import KvLayout, flat_layout, layout
from rackserve.planning.parallel import Parallel, decide
from rackserve.planning.request import Request
from rackserve.planning.sized import Sizing
from rackserve.planning.weights import Weights, stage_layers, weights

# Engines hand out whole blocks; a length in whole blocks wastes none.
LENGTH_STEP = 256
_FEW = 2
KV_BYTES = {"fp8": 1.0, "fp8_e4m3": 1.0, "fp8_e5m2": 1.0, "bf16": 2.0, "bfloat16": 2.0, "fp16": 2.0, "float16": 2.0}


@dataclass(frozen=True, slots=True)
class _Engine:
    """One instance with everything but its length decided."""

    request: Request
    quantization: quantize.Quantization
    parallel: Parallel
    steps: Steps
    held: Weights
    stages: tuple[Budget, ...]
    layouts: tuple[KvLayout, ...]
    utilization: float
    in_flight: int

    def concurrency_at(self, length: int) -> float:
        """Requests of full length at once, on the stage that holds fewest."""
        return min(
            lay.max_concurrency(stage.kv, length, self.in_flight)
            for stage, lay in zip(self.stages, self.layouts, strict=True)
        )

    def missing(self, length: int) -> int:
        """Bytes that the tightest stage lacks for the demand at this length; 0 or less: it fits."""
        requests, tokens = demand(self.request, length)
        return max(
            max(lay.bytes_for(requests, tokens, self.in_flight), lay.bytes_for(1, length, self.in_flight)) - stage.kv
            for stage, lay in zip(self.stages, self.layouts, strict=True)
        )


def demand(request: Request, length: int) -> tuple[int, int]:
    """Requests at the peak, and the tokens to provision for each: 1.2 times the average, else the full length."""
    if request.avg_tokens is None:
        return request.concurrency or 1, length
    return request.concurrency or 1, min(length, math.ceil(KV_HEADROOM * request.avg_tokens))


def size(request: Request) -> Sizing | str:
    """The sizing of this request, or why it cannot be asked for."""
    if request.quantization:
        choice = quantize.asked_for(request.quantization, request.shape, request.gpu)
    elif request.shape.quantization or not request.offered:
        choice = quantize.as_stored(request.shape, request.gpu)
    else:
        return _first_that_fits(request)
    return choice if isinstance(choice, str) else _size(request, choice)


def _first_that_fits(request: Request) -> Sizing | str:
    """The preferred format that fits; if none does, the preferred one's refusal."""
    first: Sizing | str | None = None
    for choice in quantize.candidates(request.gpu, request.offered):
        sized = _size(request, choice)
        if isinstance(sized, Sizing) and sized.fits:
            if isinstance(first, Sizing):
                note = f"quantization {first.quantization} does not fit: {first.short}"
                return replace(sized, reasons=(*sized.reasons, note))
            return sized
        first = sized if first is None else first
    return first if first is not None else "no quantization is possible"


def _size(request: Request, choice: quantize.Quantization) -> Sizing | str:
    nominal = request.shape.context_length
    if request.max_model_len is not None and request.max_model_len > nominal:
        return f"max_model_len {request.max_model_len} is asked for, {request.model} was made for {nominal}"
    if request.avg_tokens is not None and request.avg_tokens > (request.max_model_len or nominal):
        return f"avg_tokens {request.avg_tokens} is more than {request.max_model_len or nominal} tokens of one request"
    if request.engine is None:
        return f"the catalogue has no memory facts for {request.runtime} {request.version}"
    tried: list[Sizing] = []
    for tier in budget.tiers(request.engine, request.gpu, request.total_bytes):
        engine = _engine(request, request.engine, choice, tier)
        if isinstance(engine, str):
            return engine
        sized = _sizing(engine, *_length(engine), lowered=bool(tried))
        if sized.fits and sized.max_model_len == _wanted_length(request):
            return sized
        tried.append(sized)
    fitting = [sized for sized in tried if sized.fits]
    return max(fitting, key=lambda sized: sized.max_model_len) if fitting else tried[-1]


def _wanted_length(request: Request) -> int:
    """The length to plan for if memory allows: what was asked for, or 80 % of the nominal context."""
    nominal = request.shape.context_length
    if request.max_model_len is not None:
        return request.max_model_len
    usable = int(nominal * USABLE_SHARE)
    return usable // LENGTH_STEP * LENGTH_STEP or max(1, usable)


def _engine(request: Request, engine: Engine, choice: quantize.Quantization, default: BatchTier) -> _Engine | str:
    parallel = decide(request.shape, request.gpus, request.tensor_parallel, request.pipeline_parallel)
    if isinstance(parallel, str):
        return parallel
    item = kv_item_bytes(request)
    if isinstance(item, str):
        return item
    seqs = request.concurrency or default.seqs
    steps = Steps(seqs, max(request.batched_tokens or default.batched_tokens, seqs))
    held = weights(request.shape, choice.weight_format, parallel.tensor, parallel.pipeline)
    parts = tuple(
        budget.stage_parts(
            request.shape,
            engine,
            held,
            tensor=parallel.tensor,
            stage=stage,
            steps=steps,
            total=request.total_bytes,
        )
        for stage in range(parallel.pipeline)
    )
    layouts = _layouts(request, parallel, item)
    share = _utilization(request, engine, parts)
    if isinstance(share, str):
        return share
    states = _states(request, parallel, seqs)
    stages = tuple(replace(part, kv=_kv_bytes(request, engine, part, share) - states) for part in parts)
    in_flight = steps.batched_tokens * (parallel.pipeline + engine.steps_ahead)
    return _Engine(request, choice, parallel, steps, held, stages, layouts, share, in_flight)


def kv_item_bytes(request: Request) -> float | str:
    """Bytes of one element of the KV cache, or why this type cannot be had."""
    dtype = request.kv_cache_dtype
    if dtype == "auto":
        return KV_BYTES.get(request.shape.kv_cache_dtype, float(request.shape.dtype_bytes))
    item = KV_BYTES.get(dtype)
    if item is None:
        return f"kv_cache_dtype {dtype} is not known for {request.runtime}; known: auto, {', '.join(KV_BYTES)}"
    capability = request.gpu.compute_capability
    if item == 1 and capability is not None and capability < (8, 0):
        return f"kv_cache_dtype {dtype} needs compute capability 8.0, {request.gpu.name} is {request.gpu.target}"
    return item


def _layouts(request: Request, parallel: Parallel, item: float) -> tuple[KvLayout, ...]:
    layouts = []
    first = 0
    for count in stage_layers(len(request.shape.layers), parallel.pipeline):
        caches = [cache for layer in request.shape.layers[first : first + count] for cache in layer.caches]
        first += count
        if request.runtime == "vllm":
            layouts.append(layout(caches, parallel.tensor, item, request.shape.dtype_bytes))
        else:
            layouts.append(flat_layout(caches, parallel.tensor, item, request.runtime))
    return tuple(layouts)


def _states(request: Request, parallel: Parallel, seqs: int) -> int:
    """Bytes of recurrent states for all sequences, where the engine keeps them beside the token pool."""
    if request.runtime == "vllm":
        return 0
    total = 0
    for layer in request.shape.layers:
        for cache in layer.caches:
            if isinstance(cache, StateCache):
                conv, ssm = cache.shard(parallel.tensor)
                total += conv * request.shape.dtype_bytes + ssm * cache.ssm_bytes
    return total * seqs


def _utilization(request: Request, engine: Engine, parts: tuple[Budget, ...]) -> float | str:
    """The engine's flag: as asked for, else what keeps the instance below its ceiling."""
    if request.runtime == "vllm":
        most = min(budget.vllm_largest_utilization(part, engine) for part in parts)
        if request.utilization is None:
            return min(request.ceiling, max(0.0, math.floor(most * 1000) / 1000))
        if request.utilization > most:
            wanted, card = request.utilization, request.gpu.name
            return f"gpu_memory_utilization {wanted} does not start on {card}: at most {max(0.0, most):.3f} is free"
        return request.utilization
    if request.utilization is not None:
        return request.utilization
    if request.runtime == "sglang":
        return min(budget.sglang_fraction(part, engine, request.ceiling) for part in parts)
    return min(budget.trtllm_fraction(part, request.ceiling) for part in parts)


def _kv_bytes(request: Request, engine: Engine, part: Budget, share: float) -> int:
    if request.runtime == "vllm":
        return budget.vllm_kv(part, engine, share)
    if request.runtime == "sglang":
        return min(budget.sglang_kv(part, engine, share), part.kv)
    return budget.trtllm_kv(part, share)


def _length(engine: _Engine) -> tuple[int, str]:
    """max_model_len and why: as asked for, 80 % of the nominal context, or the longest that fits."""
    request, nominal = engine.request, engine.request.shape.context_length
    if request.max_model_len is not None:
        return request.max_model_len, "asked for"
    wanted = _wanted_length(request)
    least = min(nominal, math.ceil(KV_HEADROOM * (request.avg_tokens or 1) / LENGTH_STEP) * LENGTH_STEP)
    most = max(wanted, least)
    if engine.missing(most) <= 0:
        why = f"{USABLE_SHARE:.0%} of the nominal {nominal}" if most == wanted else f"{KV_HEADROOM} x avg_tokens"
        return most, why
    low, high = least // LENGTH_STEP, most // LENGTH_STEP
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if engine.missing(middle * LENGTH_STEP) <= 0 else (low, middle - 1)
    return max(low * LENGTH_STEP, least), f"the longest that fits; {USABLE_SHARE:.0%} of the nominal {nominal} does not"


def _sizing(engine: _Engine, length: int, why: str, *, lowered: bool) -> Sizing:
    request = engine.request
    tight = min(
        range(len(engine.stages)),
        key=lambda index: engine.layouts[index].max_concurrency(engine.stages[index].kv, length, engine.in_flight),
    )
    stage, lay = engine.stages[tight], engine.layouts[tight]
    missing = engine.missing(length)
    requests, tokens = demand(request, length)
    return Sizing(
        fits=missing <= 0,
        missing_bytes=max(0, missing),
        request=request,
        quantization=engine.quantization.label,
        weight_format=engine.quantization.weight_format,
        parallel=engine.parallel,
        max_model_len=length,
        max_num_seqs=engine.steps.seqs,
        max_num_batched_tokens=engine.steps.batched_tokens,
        utilization=engine.utilization,
        weights_bytes=engine.held.bytes_per_gpu,
        stage=stage,
        kv_bytes_per_token=lay.bytes_per_token(),
        kv_cache_bytes=max(0, stage.kv),
        kv_cache_tokens=max(0, lay.tokens(stage.kv, length, engine.in_flight)),
        max_concurrency=max(0.0, lay.max_concurrency(stage.kv, length, engine.in_flight)),
        needed_bytes=max(lay.bytes_for(requests, tokens, engine.in_flight), lay.bytes_for(1, length, engine.in_flight)),
        demand=(requests, tokens),
        length_reason=why,
        batch_reason=_batch_reason(request, lowered=lowered),
        reasons=(engine.quantization.reason, engine.parallel.reason),
        warnings=(*engine.quantization.warnings, *_warnings(engine, length)),
    )


def _batch_reason(request: Request, *, lowered: bool) -> str:
    if request.concurrency:
        return "one sequence for each concurrent request"
    if lowered:
        return f"below {request.runtime}'s own defaults for this GPU, which leave less room"
    return f"{request.runtime}'s own defaults for this GPU, stated so that they do not move"


def _warnings(engine: _Engine, length: int) -> tuple[str, ...]:
    """What the numbers mean for an operator who did not ask."""
    warnings = []
    request = engine.request
    if length > request.shape.context_length * USABLE_SHARE:
        warnings.append(
            f"max_model_len {length} is over {USABLE_SHARE:.0%} of the nominal {request.shape.context_length}: "
            "quality may drop"
        )
    concurrency = engine.concurrency_at(length)
    if request.concurrency is None and 0 < concurrency < _FEW:
        warnings.append(
            f"{concurrency:.1f} requests of {length} tokens fill the KV cache: state concurrency and avg_tokens "
            "to provision for more"
        )
    return tuple(warnings)
