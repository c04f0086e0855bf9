"""What one llama.cpp service occupies. Weights and context are exact, working memory is bounded from above.

llama.cpp maps or loads the weights, allocates the whole context at start, and one compute buffer for its largest
batch, the peak of a graph allocator that reuses memory. Formulas follow llama.cpp 0.5 (commit 0c1e570,
llama-kv-cache.cpp and the model graphs) and are held against its own llama-fit-params in bench/accuracy.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from rackserve.domain.shape import AttentionCache, LatentCache, Shape, StateCache
from rackserve.planning.activation import expert_width

MIB = 1024**2

# Bytes per element: ggml's blocks of 32 are 34 bytes (q8_0) and 18 bytes (q4_0). Source: ggml-common.h.
KV_BYTES_PER_ELEMENT = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}

# llama-server's default physical batch (`--ubatch-size`), which the unit states.
UBATCH_TOKENS = 512
# LLAMA_MAX_SEQ of llama.cpp (llama-cparams.h).
MOST_SLOTS = 256
# A slot's context is rounded up to this many cells.
CELL_STEP = 256

# Program, libraries, tokenizer and HTTP threads of an idle llama-server, measured as resident memory less weights,
# KV cache and compute buffer, rounded up.
PROCESS_MIB = 64
_FLOAT = 4
# llama.cpp keeps the states of recurrent layers in 32 bits.
STATE_BYTES = _FLOAT
_MASK_BYTES = 2
# Floats for each token that the bounds below miss at most: router logits, rotation matrices, alignment.
_SLACK_FLOATS = 512


@dataclass(frozen=True, slots=True)
class Footprint:
    """MiB of one service, by what it is for."""

    weights_mib: int
    kv_cache_mib: int
    compute_mib: int
    process_mib: int = PROCESS_MIB

    @property
    def total_mib(self) -> int:
        """What the service needs to hold in RAM at once."""
        return self.weights_mib + self.kv_cache_mib + self.compute_mib + self.process_mib

    @property
    def limit_mib(self) -> int:
        """The unit's MemoryMax: a quarter of the weights on top.

        The page cache of mapped weights is charged to the unit's cgroup while the file is read in; a limit at the
        exact need makes the kernel reclaim pages that are read again at once.
        """
        return self.total_mib + math.ceil(self.weights_mib / 4)


def kv_bytes_per_token(shape: Shape, kv_cache_dtype: str) -> float:
    """Bytes of KV cache that one more token takes over all layers that keep every token."""
    item = KV_BYTES_PER_ELEMENT[kv_cache_dtype]
    return sum(cache_elements(cache) * item for cache in _kept(shape) if not window_of(cache))


def cache_elements(cache: AttentionCache | LatentCache) -> int:
    """Elements of one token in one layer; keys and values may differ in length, a latent is both."""
    if isinstance(cache, LatentCache):
        return cache.length
    return cache.kv_heads * (cache.key_length + cache.value_length)


def window_of(cache: AttentionCache | LatentCache) -> int:
    """Tokens that the layer looks back, 0 for all of them. A chunk is kept like a window."""
    return (cache.window or cache.chunk or 0) if isinstance(cache, AttentionCache) else 0


def _padded(cells: int) -> int:
    return -(-cells // CELL_STEP) * CELL_STEP


@functools.lru_cache(maxsize=4096)
def context_bytes(shape: Shape, kv_cache_dtype: str, context_per_slot: int, slots: int, ubatch: int) -> int:
    """Bytes of the context: every slot has its own cells (`--no-kv-unified`), windowed layers only their window."""
    item = KV_BYTES_PER_ELEMENT[kv_cache_dtype]
    total = float(slots * sum(cache.conv + cache.ssm for cache in _states(shape)) * STATE_BYTES)
    for cache in _kept(shape):
        total += kept_cells(window_of(cache), context_per_slot, ubatch) * slots * cache_elements(cache) * item
    return math.ceil(total)


def kept_cells(window: int, context_per_slot: int, ubatch: int) -> int:
    """Cells that one slot has in a layer that looks back `window` tokens, 0 for all."""
    cells = _padded(context_per_slot)
    return _padded(min(cells, window + ubatch)) if window else cells


def compute_bytes(shape: Shape, kv_cache_dtype: str, context_per_slot: int, slots: int, ubatch: int) -> int:
    """Bytes of llama-server's compute buffer: the widest point of a layer, one token's logits per slot, the masks."""
    tokens = min(ubatch, _padded(context_per_slot) * slots)
    logits = shape.vocab * _FLOAT * slots
    layer = _layer_floats(shape, kv_cache_dtype) * _FLOAT * tokens
    return layer + logits + mask_bytes(shape, context_per_slot, slots, ubatch)


def mask_bytes(shape: Shape, context_per_slot: int, slots: int, ubatch: int) -> int:
    """Bytes of the attention masks in it: one over all cells of a slot, another where layers have a window."""
    cells = _padded(context_per_slot)
    windows = max((window_of(cache) for cache in _kept(shape)), default=0)
    masked = cells + (_padded(min(cells, windows + ubatch)) if windows else 0)
    return masked * min(ubatch, cells * slots) * _MASK_BYTES


def _kept(shape: Shape) -> list[AttentionCache | LatentCache]:
    return [cache for cache in shape.caches if isinstance(cache, AttentionCache | LatentCache)]


def _states(shape: Shape) -> list[StateCache]:
    return [cache for cache in shape.caches if isinstance(cache, StateCache)]


@functools.lru_cache(maxsize=1024)
def _layer_floats(shape: Shape, kv_cache_dtype: str) -> int:
    """Floats for each token of a batch at the widest point of any layer, attention or feed-forward."""
    # A quantized cache has its queries rotated, which takes another copy.
    copies = 2 if kv_cache_dtype.startswith("q") else 1
    query = _query(shape)
    return max(_attention_floats(shape, query * copies), _feed_forward_floats(shape, query * copies)) + _SLACK_FLOATS


def _query(shape: Shape) -> int:
    """Elements of all query heads of the widest layer; with MLA those of the values."""
    if shape.query:
        return shape.query
    outputs = [m.columns for layer in shape.layers for m in layer.matrices if m.name == "self_attn.o_proj"]
    lengths = [cache.key_length for cache in _kept(shape) if isinstance(cache, AttentionCache)]
    return max(outputs, default=shape.heads * max(lengths, default=shape.hidden // max(1, shape.heads)))


def _attention_floats(shape: Shape, query: int) -> int:
    latents = [cache for cache in _kept(shape) if isinstance(cache, LatentCache)]
    if latents:
        # Of each head: the query, its rotated part, what stands for its other part, and both joined.
        width = latents[0].length
        return shape.heads * (2 * width + 4 * max(1, latents[0].rope)) + 6 * shape.hidden + 4096
    keys = max((cache_elements(cache) for cache in _kept(shape)), default=0)
    states = _states(shape)
    if not states:
        return 3 * shape.hidden + 2 * query + keys
    # Gated attention holds queries, their norm and the gate; a delta net holds its convolution three times.
    return 3 * shape.hidden + max(4 * query + 2 * keys, *(cache.conv for cache in states))


def _feed_forward_floats(shape: Shape, query: int) -> int:
    residual = 4 * shape.hidden + max(query, shape.hidden)
    width = expert_width(shape)
    inner = shape.experts_per_token * width
    chosen = 3 * inner + shape.experts_per_token * shape.hidden if width else 0
    return residual + max(3 * shape.intermediate, chosen)


def footprint(shape: Shape, size_bytes: int, *, kv_cache_dtype: str, context_per_slot: int, slots: int) -> Footprint:
    """MiB that one service in RAM needs: `slots` concurrent requests of at most `context_per_slot` tokens each.

    `size_bytes` is the file of weights. Each part is rounded up, so that a yes is safe.
    """
    return Footprint(
        weights_mib=math.ceil(size_bytes / MIB),
        kv_cache_mib=math.ceil(context_bytes(shape, kv_cache_dtype, context_per_slot, slots, UBATCH_TOKENS) / MIB),
        compute_mib=math.ceil(compute_bytes(shape, kv_cache_dtype, context_per_slot, slots, UBATCH_TOKENS) / MIB),
    )
