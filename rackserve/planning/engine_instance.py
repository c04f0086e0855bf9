"""One instance of a paged engine, all but its length decided: parts of memory, KV layout, memory flag. Pure."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

from rackserve.domain.engine import BatchTier, Engine
from rackserve.domain.policy import KV_HEADROOM, RESERVE
from rackserve.domain.shape import StateCache
from rackserve.planning import budget, quantize
from rackserve.planning.activation import MIB
from rackserve.planning.budget import Budget, Steps
from rackserve.planning.kv_cache import KvLayout, flat_layout, stage_layouts
from rackserve.planning.kv_types import kv_type_problem, type_bytes
from rackserve.planning.parallel import Parallel, decide
from rackserve.planning.request import Request
from rackserve.planning.weights import Weights, stage_layers, weights


@dataclass(frozen=True, slots=True)
class EngineInstance:
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
        reserve = int(self.request.total_bytes * RESERVE)
        return max(
            self.needed(lay, length) + reserve - stage.kv for stage, lay in zip(self.stages, self.layouts, strict=True)
        )

    def needed(self, lay: KvLayout, length: int) -> int:
        """Bytes of KV cache for the demand, and for one request of full length at least."""
        requests, tokens = demand(self.request, length, self.parallel.replicas)
        return max(lay.bytes_for(requests, tokens, self.in_flight), lay.bytes_for(1, length, self.in_flight))

    @property
    def most_sequences(self) -> int | None:
        """Requests that recurrent layers have a block for, None without such layers.

        vLLM captures graphs for max_num_seqs and does not start with more (config/compilation.py).
        """
        if not any(spec.kind == "state" for lay in self.layouts for spec in lay.groups):
            return None
        reserve = int(self.request.total_bytes * RESERVE)
        return min(lay.blocks(stage.kv - reserve) for stage, lay in zip(self.stages, self.layouts, strict=True))


def demand(request: Request, length: int, replicas: int) -> tuple[int, int]:
    """Requests of one replica at the peak, and the tokens for each: 1.2 times the average, else the full length."""
    requests = math.ceil((request.concurrency or 1) / replicas)
    if request.avg_tokens is None:
        return requests, length
    return requests, min(length, math.ceil(KV_HEADROOM * request.avg_tokens))


def build(request: Request, engine: Engine, choice: quantize.Quantization, default: BatchTier) -> EngineInstance | str:
    """The instance with this quantization and these batch defaults, or why there is none."""
    parallel = decide(
        request.shape, request.gpus, request.tensor_parallel, request.pipeline_parallel, request.host_gpus
    )
    if isinstance(parallel, str):
        return parallel
    item = kv_item_bytes(request)
    if isinstance(item, str):
        return item
    seqs = math.ceil(request.concurrency / parallel.replicas) if request.concurrency else default.seqs
    steps = Steps(seqs, max(request.batched_tokens or default.batched_tokens, seqs))
    towers = choice.weight_format if choice.converted else ""
    held = weights(request.shape, choice.weight_format, parallel.tensor, parallel.pipeline, towers)
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
    layouts = kv_layouts(request, parallel, item)
    share = _utilization(request, engine, parts)
    if isinstance(share, str):
        return share
    states = _states(request, parallel, seqs)
    stages = tuple(replace(part, kv=_kv_bytes(request, engine, part, share) - states) for part in parts)
    in_flight = steps.batched_tokens * (parallel.pipeline + engine.steps_ahead)
    return EngineInstance(request, choice, parallel, steps, held, stages, layouts, share, in_flight)


def kv_item_bytes(request: Request) -> float | str:
    """Bytes of one element of the KV cache, or why this type cannot be had."""
    problem = kv_type_problem(request.runtime, request.kv_cache_dtype, request.gpu)
    if problem:
        return problem
    dtype = request.kv_cache_dtype.lower()
    return type_bytes(request.shape.kv_cache_dtype if dtype == "auto" else dtype) or float(request.shape.dtype_bytes)


def kv_layouts(request: Request, parallel: Parallel, item: float) -> tuple[KvLayout, ...]:
    """The KV cache of each pipeline stage, `item` bytes an element."""
    layers = [layer.caches for layer in request.shape.layers]
    counts = stage_layers(len(layers), parallel.pipeline)
    if request.runtime == "vllm":
        return stage_layouts(layers, counts, parallel.tensor, item, request.shape.dtype_bytes)
    ends = list(itertools.accumulate(counts, initial=0))
    return tuple(
        flat_layout([cache for caches in layers[first:end] for cache in caches], parallel.tensor, item, request.runtime)
        for first, end in itertools.pairwise(ends)
    )


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
            below = min(budget.vllm_utilization(part, engine, request.ceiling) for part in parts)
            return min(below, max(0.0, math.floor(most * 1000) / 1000))
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
        # A share that leaves too little for activations and graphs runs out of memory under load, not at the start.
        return min(budget.sglang_kv(part, engine, share), part.kv - engine.context_mib * MIB)
    return budget.trtllm_kv(part, share, request.ceiling if request.utilization is None else 1.0)
