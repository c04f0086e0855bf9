"""Size one instance of a paged engine (vLLM, SGLang, TensorRT-LLM) on a group of equal GPUs, every number explained.

Everything is pure and offline. What cannot be asked for at all comes back as text; what can be but does not fit
comes back as a Sizing that says by how much.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

from rackserve.domain.engine import BatchTier, Engine, WholePrompts
from rackserve.domain.policy import KV_HEADROOM, USABLE_SHARE
from rackserve.planning import budget, quantize
from rackserve.planning.engine_instance import EngineInstance, build, demand
from rackserve.planning.kv_types import kv_type
from rackserve.planning.lengths import avg_tokens_problem
from rackserve.planning.prefill import whole_prompts
from rackserve.planning.request import Request
from rackserve.planning.sized import SHORT_CONTEXT, Sizing

# Engines hand out whole blocks; a length in whole blocks wastes none.
LENGTH_STEP = 256
# A KV cache that holds fewer requests of full length than this is worth a word.
_FEW = 2
# Engines capture graphs for whole steps of sequences.
_SEQS_STEP = 8


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
    unable = _cannot(request)
    if unable or request.engine is None:
        return unable
    whole = whole_prompts(request, request.engine)
    tried: list[Sizing] = []
    for tier in budget.tiers(request.engine, request.gpu, request.total_bytes):
        sized = _on_tier(request, request.engine, choice, tier, whole, lowered=bool(tried))
        if isinstance(sized, str):
            return sized
        if sized.fits and sized.max_model_len == _wanted_length(request):
            return sized
        tried.append(sized)
    fitting = [sized for sized in tried if sized.fits]
    return max(fitting, key=lambda sized: sized.max_model_len) if fitting else tried[-1]


def _on_tier(
    request: Request,
    engine: Engine,
    choice: quantize.Quantization,
    tier: BatchTier,
    whole: WholePrompts | None,
    *,
    lowered: bool,
) -> Sizing | str:
    """The sizing with the tier's batch; where prompts are computed whole, with a step that holds the longest."""

    @functools.cache
    def with_step(tokens: int) -> EngineInstance | str:
        return _built(request, engine, choice, tier.model_copy(update={"batched_tokens": tokens}))

    def holding(length: int) -> EngineInstance | str:
        # A prompt waits as long as it does not fit beside a token for every request that is being answered.
        needed = length + (request.concurrency or tier.seqs) if whole else 0
        return with_step(max(tier.batched_tokens, needed))

    def missing(length: int) -> int:
        instance = holding(length)
        return sys.maxsize if isinstance(instance, str) else instance.missing(length)

    length, why = _length(request, missing)
    instance = holding(length)
    if isinstance(instance, str):
        return instance
    tokens = instance.steps.batched_tokens
    if whole and tokens < length:
        return (
            f"max_num_batched_tokens {tokens} is less than max_model_len {length}, and prompts are computed whole "
            f"({whole.why}); leave it out, or state max_model_len {tokens}"
        )
    sized = _sizing(instance, length, why, _batch_reason(instance, tier, lowered=lowered))
    return replace(sized, whole_prompts=whole.why) if whole else sized


def _cannot(request: Request) -> str:
    """Why the request makes no sense whatever the memory, empty if it does."""
    nominal = request.shape.context_length
    if request.max_model_len is not None and request.max_model_len > nominal:
        return f"max_model_len {request.max_model_len} is asked for, {request.model} was made for {nominal}"
    if request.engine is None:
        return f"the catalogue has no memory facts for {request.runtime} {request.version}"
    return avg_tokens_problem(request.avg_tokens, request.max_model_len, nominal)


def _built(request: Request, engine: Engine, choice: quantize.Quantization, tier: BatchTier) -> EngineInstance | str:
    """The instance with the tier's batch, or with the most sequences that the cache has recurrent states for.

    Fewer sequences take less memory, which leaves more states and more for the length: the most is where these meet.
    """
    instance = build(request, engine, choice, tier)
    if isinstance(instance, str) or request.concurrency is not None or _has_states(instance):
        return instance

    def most(suits: Callable[[EngineInstance], bool]) -> EngineInstance | None:
        low, high, found = 0, instance.steps.seqs // _SEQS_STEP, None
        while high - low > 1:
            middle = (low + high) // 2
            tried = build(request, engine, choice, tier.model_copy(update={"seqs": middle * _SEQS_STEP}))
            if not isinstance(tried, str) and suits(tried):
                low, found = middle, tried
            else:
                high = middle
        return found

    length = _wanted_length(request)
    long_enough = most(lambda tried: _has_states(tried) and tried.missing(length) <= 0)
    alone = tier.model_copy(update={"seqs": 1})
    return long_enough or most(_has_states) or build(request, engine, choice, alone)


def _has_states(instance: EngineInstance) -> bool:
    """Whether the cache has a block for every sequence's recurrent state, or none is needed."""
    return instance.most_sequences is None or instance.most_sequences >= instance.steps.seqs


def _wanted_length(request: Request) -> int:
    """The length to plan for if memory allows: what was asked for, or 80 % of the nominal context."""
    nominal = request.shape.context_length
    if request.max_model_len is not None:
        return request.max_model_len
    usable = int(nominal * USABLE_SHARE)
    return usable // LENGTH_STEP * LENGTH_STEP or max(1, usable)


def _length(request: Request, missing: Callable[[int], int]) -> tuple[int, str]:
    """max_model_len and why: as asked for, 80 % of the nominal context, or the longest that fits.

    missing: bytes that an instance with this length lacks; 0 or less: it fits.
    """
    nominal = request.shape.context_length
    if request.max_model_len is not None:
        return request.max_model_len, "asked for"
    wanted = _wanted_length(request)
    needed = math.ceil(KV_HEADROOM * (request.avg_tokens or 1) / LENGTH_STEP) * LENGTH_STEP
    least = min(nominal if request.avg_tokens else wanted, needed)
    most = max(wanted, least)
    if missing(most) <= 0:
        why = f"{USABLE_SHARE:.0%} of the nominal {nominal}" if most == wanted else f"{KV_HEADROOM} x avg_tokens"
        return most, why
    low, high = least // LENGTH_STEP, most // LENGTH_STEP
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if missing(middle * LENGTH_STEP) <= 0 else (low, middle - 1)
    if missing(least) > 0:
        return least, f"{KV_HEADROOM} x avg_tokens" if request.avg_tokens else "the least to plan for; it does not fit"
    return max(low * LENGTH_STEP, least), f"the longest that fits; {USABLE_SHARE:.0%} of the nominal {nominal} does not"


def _sizing(engine: EngineInstance, length: int, why: str, batch_reason: str) -> Sizing:
    request, replicas = engine.request, engine.parallel.replicas
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
        weights_bytes=stage.weights,
        stage=stage,
        kv_bytes_per_token=lay.bytes_per_token(),
        kv_cache_bytes=max(0, stage.kv),
        kv_cache_tokens=max(0, lay.tokens(stage.kv, length, engine.in_flight)) * replicas,
        max_concurrency=max(0.0, lay.max_concurrency(stage.kv, length, engine.in_flight)) * replicas,
        needed_bytes=engine.needed(lay, length),
        demand=demand(request, length, replicas),
        length_reason=why,
        batch_reason=batch_reason,
        reasons=(engine.quantization.reason, engine.parallel.reason),
        warnings=(*engine.quantization.warnings, *_warnings(engine, length)),
    )


def _batch_reason(engine: EngineInstance, tier: BatchTier, *, lowered: bool) -> str:
    request = engine.request
    stated = "; the tokens of a step are asked for" if request.batched_tokens else ""
    if request.concurrency:
        return f"one sequence for each concurrent request{stated}"
    if engine.steps.seqs < tier.seqs:
        return f"no more sequences than the cache has blocks for their recurrent states{stated}"
    if lowered:
        return f"below {request.runtime}'s own defaults for this GPU, which leave less room{stated}"
    if engine.steps.batched_tokens > tier.batched_tokens and not request.batched_tokens:
        return f"{request.runtime}'s own default of sequences, stated so that it does not move"
    return f"{request.runtime}'s own defaults for this GPU, stated so that they do not move{stated}"


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
    warnings.extend(_not_in_the_command(engine, length))
    return tuple(warnings)


def _not_in_the_command(engine: EngineInstance, length: int) -> Iterator[str]:
    """What the numbers take for granted and one command line does not bring about."""
    request, parallel = engine.request, engine.parallel
    if parallel.replicas > 1:
        yield (
            f"the command starts one replica on {parallel.tensor * parallel.pipeline} GPUs: start it once for each of "
            f"{parallel.replicas}, on GPUs and a port of its own, or leave tensor_parallel out"
        )
    if parallel.tensor * parallel.pipeline > request.host_gpus * request.hosts:
        yield f"more than the {request.host_gpus} GPUs of one host: {request.runtime} has to be started on all of them"
    if request.shape.extras:
        yield (
            "images and sound are not counted: an encoder's largest input is worked on in the memory of activations, "
            "and a start with a full KV cache may need a lower memory share"
        )
    if request.runtime == "tensorrt-llm" and request.kv_cache_dtype != "auto":
        dtype = kv_type(request.runtime, request.kv_cache_dtype)
        yield f"trtllm-serve takes this type from a file only: kv_cache_config with dtype {dtype}"
    if request.runtime == "tensorrt-llm" and request.shared_prompts is False and length < SHORT_CONTEXT:
        yield "trtllm-serve takes this from a file only: kv_cache_config with enable_block_reuse false"
