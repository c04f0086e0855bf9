"""How fast decoding can be at most: the roofline of memory bandwidth. Pure arithmetic, upper bounds only.

Attainable speed is the lower of what the arithmetic units and what the memory can do (Williams, Waterman, Patterson:
Roofline, CACM 52(4), 2009). A decode step multiplies each weight that it touches once for each sequence of the batch, a
few operations a byte, so at the batch sizes of serving the memory is the limit:

    step time >= bytes read in the step / bandwidth,    tokens/s <= sequences / step time

Bytes read on each GPU: the weights that the step touches, once for the whole batch, and the KV cache of every
sequence. Prompts (bound by arithmetic), communication between GPUs, kernel starts and scheduling are left out: all of
them make the true figure lower, none higher.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rackserve.domain.shape import AttentionCache, Cache, CompressedCache, LatentCache, Layer, Matrix, Shape, StateCache
from rackserve.planning.engine_instance import kv_item_bytes
from rackserve.planning.gguf_instance import resident
from rackserve.planning.gguf_weights import weights_of
from rackserve.planning.instance import GGUF_RUNTIMES
from rackserve.planning.memory import KV_BYTES_PER_ELEMENT
from rackserve.planning.sized import Sizing
from rackserve.planning.weights import matrix_bytes, padded_vocab_bytes, stage_layers

_GB = 10**9
# Operations per byte at which arithmetic becomes the limit are a few hundred: H100 SXM 989 TFLOPS in bf16 / 3.35 TB/s
# is 295, RTX 4090 165 / 1.008 is 164; a batch of b does about b of them for each byte of 16-bit weights, 2 b at 8 bits.
_LARGE_BATCH = 128


@dataclass(frozen=True, slots=True)
class Decode:
    """One operating point of `batch` sequences at once.

    context: tokens of each sequence that are in the KV cache.
    weight_bytes, kv_bytes: read in a step on each GPU of the pipeline stage that reads most.
    tokens_per_s: at most, of all sequences together. step_s: seconds that one token of one sequence takes at least.
    """

    batch: int
    context: int
    weight_bytes: float
    kv_bytes: float
    tokens_per_s: float
    step_s: float

    def as_dict(self) -> dict[str, object]:
        """For --json; every speed says that it is a bound."""
        return {
            "batch": self.batch,
            "context_tokens": self.context,
            "weight_bytes_per_step_per_gpu": round(self.weight_bytes),
            "kv_bytes_per_step_per_gpu": round(self.kv_bytes),
            "decode_tokens_per_s_bound": round(self.tokens_per_s, 2),
            "decode_tokens_per_s_bound_per_request": round(self.tokens_per_s / self.batch, 2),
            "ms_per_token_lower_bound": round(self.step_s * 1000, 3),
        }


def decode_bound(sizing: Sizing, batch: int, context: int) -> Decode | str:
    """The bound for `batch` sequences of `context` tokens each, or why there is none.

    Tensor parallelism divides the bytes of a step over its GPUs. Pipeline stages work one after the other on a token,
    so they do not speed up one stream; several micro-batches keep them all busy. llama.cpp, which splits by layers too,
    has one batch in flight and so never uses two GPUs at once.
    """
    gpu = sizing.request.gpu
    if gpu.bandwidth_gb_s is None:
        return f"the memory bandwidth of {gpu.tag} ({gpu.name}) is not in the catalogue"
    if sizing.offload is not None and not resident(sizing):
        left = sizing.offload.layers - sizing.offload.gpu_layers
        return f"{left} layers are in the host's RAM, whose bandwidth is not known"
    gguf = sizing.request.runtime in GGUF_RUNTIMES
    in_flight = 1 if gguf else min(batch, sizing.parallel.pipeline)
    each = batch / in_flight
    reads = _gguf_reads(sizing, each, context) if gguf else _paged_reads(sizing, each, context)
    times = [(weights + kv) / (gpu.bandwidth_gb_s * _GB) for weights, kv in reads]
    # No faster than one micro-batch passes all stages, and than the slowest stage passes all micro-batches.
    step_s = max(sum(times), in_flight * max(times))
    weights, kv = max(reads, key=sum)
    return Decode(batch, context, weights, kv, sizing.parallel.replicas * batch / step_s, step_s)


def bound_notes(sizing: Sizing, decode: Decode) -> tuple[str, ...]:
    """Where the bound may be far off: what the catalogue does not know of the GPU, or a GGUF header of the model."""
    notes = []
    if decode.batch > _LARGE_BATCH:
        notes.append(f"with over {_LARGE_BATCH} requests at once arithmetic is the tighter limit on most GPUs: measure")
    if not any(layer.matrices for layer in sizing.request.shape.layers):
        notes.append("the GGUF file is taken for a dense model: a mixture of experts reads less and is faster")
    return tuple(notes)


def experts_touched(count: int, chosen: int, batch: float) -> float:
    """Experts of a layer that `batch` tokens touch on average where each chooses evenly: count x (1 - (1 - k/n)^b).

    `chosen` at batch 1, all of them in the end, and always less than batch x chosen, because choices meet.
    """
    if count <= chosen:
        return float(count)
    return count * (1 - math.pow(1 - chosen / count, batch))


def kv_bytes_read(
    caches: tuple[Cache, ...], tensor_parallel: int, item_bytes: float, context: int, dtype_bytes: int
) -> float:
    """Bytes of one sequence's cache that a step reads on each GPU: windows read no further back than they reach."""
    total = 0.0
    for cache in caches:
        if isinstance(cache, AttentionCache):
            heads = max(1, -(-cache.kv_heads // tensor_parallel))
            seen = min(context, cache.window or cache.chunk or context)
            total += seen * heads * (cache.key_length + cache.value_length) * item_bytes + context * cache.indexer
        elif isinstance(cache, LatentCache):
            total += context * (cache.length * item_bytes + cache.indexer)
        elif isinstance(cache, StateCache):
            conv, ssm = cache.shard(tensor_parallel)
            total += conv * dtype_bytes + ssm * cache.ssm_bytes
        elif isinstance(cache, CompressedCache):
            total += min(context, cache.window or context) / cache.tokens * cache.state
    return total


def _paged_reads(sizing: Sizing, batch: float, context: int) -> list[tuple[float, float]]:
    """Bytes of weights and of KV cache on a GPU of each stage, for one micro-batch."""
    request, shape, tensor = sizing.request, sizing.request.shape, sizing.parallel.tensor
    item = kv_item_bytes(request)
    item_bytes = item if isinstance(item, float) else float(shape.dtype_bytes)
    reads, first = [], 0
    for count in stage_layers(len(shape.layers), sizing.parallel.pipeline):
        layers = shape.layers[first : first + count]
        first += count
        weights = sum(_layer_read(layer, shape, sizing.weight_format, tensor, batch) for layer in layers)
        if first == len(shape.layers):
            # Of the embedding a step reads one row for each token, of the head all.
            weights += padded_vocab_bytes(shape.head or shape.embedding, tensor, shape.dtype_bytes)
        caches = tuple(cache for layer in layers for cache in layer.caches)
        reads.append((weights, batch * kv_bytes_read(caches, tensor, item_bytes, context, shape.dtype_bytes)))
    return reads


def _layer_read(layer: Layer, shape: Shape, weight_format: str, tensor: int, batch: float) -> float:
    return sum(
        matrix_bytes(matrix, weight_format, tensor, shape.dtype_bytes) * _touched(matrix, shape, batch)
        for matrix in layer.matrices
    )


def _touched(matrix: Matrix, shape: Shape, batch: float) -> float:
    """The part of a matrix that a step reads: 1, but for experts that nobody chose."""
    if matrix.count == 1 or not shape.experts_per_token:
        return 1.0
    return experts_touched(matrix.count, shape.experts_per_token, batch) / matrix.count


def _gguf_reads(sizing: Sizing, batch: float, context: int) -> list[tuple[float, float]]:
    """One run of layers after the other over all GPUs: together they are one stage that holds everything."""
    request, shape = sizing.request, sizing.request.shape
    parts = weights_of(request, sizing.weight_format)
    if parts is None:
        return [(0.0, 0.0)]
    matrices = [matrix for layer in shape.layers for matrix in layer.matrices]
    touched = sum(matrix.elements * _touched(matrix, shape, batch) for matrix in matrices)
    # A GGUF header lists no matrices; of a dense model all are read.
    share = touched / sum(matrix.elements for matrix in matrices) if matrices else 1.0
    caches = tuple(cache for layer in shape.layers for cache in layer.caches)
    item = KV_BYTES_PER_ELEMENT[{"auto": "f16"}.get(request.kv_cache_dtype, request.kv_cache_dtype)]
    kv = kv_bytes_read(caches, 1, item, context, 4)
    return [(parts.layers * share + parts.output, batch * kv)]
