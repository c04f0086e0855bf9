"""Size one instance of a paged engine (vLLM, SGLang, TensorRT-LLM) on a group of equal GPUs, every number explained.

Everything is pure and offline. What cannot be asked for at all comes back as text; what can be but does not fit
comes back as a Sizing that says by how much.
"""

from __future__ import annotations

import math
from dataclasses import replace

from rackserve.domain.policy import KV_HEADROOM, USABLE_SHARE
from rackserve.planning import budget, quantize
from rackserve.planning.engine_instance import EngineInstance, build, demand
from rackserve.planning.request import Request
from rackserve.planning.sized import Sizing

# Engines hand out whole blocks; a length in whole blocks wastes none.
LENGTH_STEP = 256
# A KV cache that holds fewer requests of full length than this is worth a word.
_FEW = 2


def size(request: Request) -> Sizing | str:
    """The sizing of this request, or why it cannot be asked for."""
    if request.quantization:
        choice = quantize.asked_for(
            request.quantization, request.shape, request.gpu, request.offered, converts=converts(request)
        )
    elif request.shape.quantization or not request.offered:
        choice = quantize.as_stored(request.shape, request.gpu)
    else:
        return _first_that_fits(request)
    return choice if isinstance(choice, str) else _size(request, choice)


def _first_that_fits(request: Request) -> Sizing | str:
    """The preferred format that fits; if none does, the refusal of the one that is nearest to it."""
    refused: list[Sizing] = []
    reason = ""
    for choice in quantize.candidates(request.gpu, request.offered, converts=converts(request)):
        sized = _size(request, choice)
        if isinstance(sized, str):
            reason = sized
        elif sized.fits:
            notes = (f"quantization {other.quantization} does not fit: {other.short}" for other in refused[:1])
            return replace(sized, reasons=(*sized.reasons, *notes))
        else:
            refused.append(sized)
    return min(refused, key=lambda sized: sized.missing_bytes) if refused else reason


def converts(request: Request) -> bool:
    """Whether the runtime makes FP8 from a 16-bit checkpoint while it loads; TensorRT-LLM serves what is published."""
    return request.runtime in {"vllm", "sglang"}


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
        engine = build(request, request.engine, choice, tier)
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


def _length(engine: EngineInstance) -> tuple[int, str]:
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


def _sizing(engine: EngineInstance, length: int, why: str, *, lowered: bool) -> Sizing:
    request = engine.request
    tight = min(
        range(len(engine.stages)),
        key=lambda index: engine.layouts[index].max_concurrency(engine.stages[index].kv, length, engine.in_flight),
    )
    stage, lay = engine.stages[tight], engine.layouts[tight]
    missing = engine.missing(length)
    return Sizing(
        fits=missing <= 0,
        missing_bytes=max(0, missing),
        request=request,
        quantization=engine.quantization.label,
        weight_format=engine.quantization.weight_format,
        converted=engine.quantization.converted,
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
        needed_bytes=engine.needed(lay, length),
        demand=demand(request, length),
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


def _warnings(engine: EngineInstance, length: int) -> tuple[str, ...]:
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
