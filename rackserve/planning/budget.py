"""What is left for the KV cache on each GPU, and what the engine's own memory flag has to say. All sizes are bytes.

The same fraction means three things: vLLM takes its share of the GPU's total memory and puts everything inside it
(graphs too from 0.20 on); SGLang's static share of the memory that is free before loading holds weights and KV cache
only; TensorRT-LLM's share is of what is free after loading and profiling, for the KV cache alone.
Sources: vLLM 0.33 v1/worker/gpu_worker.py; SGLang 0.5.23 model_executor/pool_configurator; TensorRT-LLM 1.2
_torch/pyexecutor/_util.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rackserve.domain.engine import BatchTier, Engine
from rackserve.domain.gpu import Gpu
from rackserve.domain.shape import Shape
from rackserve.planning.activation import MIB, activation_bytes, graph_bytes
from rackserve.planning.weights import Weights, stage_layers

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Steps:
    """The largest step of the engine: requests and tokens that it computes at once."""

    seqs: int
    batched_tokens: int


@dataclass(frozen=True, slots=True)
class Budget:
    """One pipeline stage's GPU: what each part takes, and what is left for the KV cache; below 0 it does not start."""

    total: int
    weights: int
    activation: int
    overhead: int
    graphs: int
    kv: int

    @property
    def peak(self) -> int:
        """Bytes in use with an empty KV cache."""
        return self.weights + self.activation + self.overhead + self.graphs


def tiers(engine: Engine, gpu: Gpu, total_bytes: int) -> list[BatchTier]:
    """The engine's own defaults for this GPU, then those of smaller ones, which leave more room."""
    name = gpu.name.lower()
    fitting = [
        entry
        for entry in sorted(engine.tiers, key=lambda entry: -entry.total_gib)
        if total_bytes >= entry.total_gib * GIB and not any(word in name for word in entry.not_for)
    ]
    return fitting or [engine.tiers[-1]]


def stage_parts(
    shape: Shape, engine: Engine, held: Weights, *, tensor: int, stage: int, steps: Steps, total: int
) -> Budget:
    """What a stage's GPU holds before the KV cache; `kv` is all of the rest."""
    stages = len(held.stages)
    layers = stage_layers(len(shape.layers), stages)[stage]
    activation = activation_bytes(
        shape, engine, tensor, steps.seqs, steps.batched_tokens, last_stage=stage == stages - 1
    )
    outside = engine.non_torch_parallel_mib if tensor > 1 else engine.non_torch_mib
    weights = held.stage(stage)
    graphs = graph_bytes(shape, engine, layers, steps.seqs)
    overhead = outside * MIB
    return Budget(total, weights, activation, overhead, graphs, total - weights - activation - overhead - graphs)


def vllm_kv(parts: Budget, engine: Engine, utilization: float) -> int:
    """Bytes of KV cache at this --gpu-memory-utilization."""
    requested = math.ceil(parts.total * utilization)
    graphs = parts.graphs if engine.graphs_counted else 0
    return requested - parts.weights - parts.activation - parts.overhead - graphs


def vllm_largest_utilization(parts: Budget, engine: Engine) -> float:
    """The most that starts: the process's own context is gone before the engine looks, and older graphs come on top."""
    outside = engine.context_mib * MIB + (0 if engine.graphs_counted else parts.graphs)
    return (parts.total - outside) / parts.total


def vllm_utilization(parts: Budget, engine: Engine, ceiling: float) -> float:
    """The flag with which all of it stays below the ceiling: before 0.20 graphs come on top of it."""
    if engine.graphs_counted:
        return ceiling
    return math.floor(max(0.0, ceiling - parts.graphs / parts.total) * 1000) / 1000


def sglang_kv(parts: Budget, engine: Engine, fraction: float) -> int:
    """Bytes of KV cache at this --mem-fraction-static: the rest of the free memory is for activations and graphs."""
    free = parts.total - engine.context_mib * MIB
    return math.floor(free * fraction) - parts.weights - parts.overhead


def sglang_fraction(parts: Budget, engine: Engine, ceiling: float) -> float:
    """The static fraction with which all of it, activations and graphs included, stays below the ceiling."""
    free = parts.total - engine.context_mib * MIB
    allowed = parts.total * ceiling - parts.activation - parts.graphs - engine.context_mib * MIB
    return math.floor(max(0.0, allowed / free) * 1000) / 1000


def trtllm_kv(parts: Budget, fraction: float, ceiling: float) -> int:
    """Bytes of KV cache at this free_gpu_memory_fraction; where all else is over the ceiling, how much, negative."""
    over = math.floor(parts.total * ceiling - parts.peak)
    return over if over < 0 else math.floor((parts.total - parts.peak) * fraction)


def trtllm_fraction(parts: Budget, ceiling: float) -> float:
    """The fraction of what is free after profiling with which all of it stays below the ceiling."""
    free = parts.total - parts.peak
    if free <= 0:
        return 0.0
    return math.floor(max(0.0, (parts.total * ceiling - parts.peak) / free) * 1000) / 1000
