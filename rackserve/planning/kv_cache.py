"""How vLLM lays out the KV cache: groups of layers, pages and blocks, for every kind of layer. Pure arithmetic.

Follows v1/core/kv_cache_planning.py and v1/kv_cache_interface.py of vLLM 0.33; bench/accuracy compares it with that
code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rackserve.domain.shape import AttentionCache, Cache, CompressedCache, LatentCache, StateCache

# Tokens of one block, vLLM's default on GPUs, and of the MLA kernels (FlashMLA).
BLOCK_TOKENS = 16
MLA_BLOCK_TOKENS = 64
# With prefix caching a recurrent layer keeps the running state and the last one at a block's end.
STATES_PER_REQUEST = 2
# vLLM pads a group to the largest kind of layer where kinds differ less than this in number.
_SIMILAR = 1.5
# Not compared with the engine: no kernels of these models run on the machines where bench/accuracy does.
_PACKING = 1.05


@dataclass(frozen=True, slots=True)
class Spec:
    """What one layer keeps per block.

    kind: full, sliding, chunked, latent or state. reach: tokens of the window or chunk. page: bytes of one block.
    units: of the pool's blocks that one of these takes.
    """

    kind: str
    block: int
    page: int
    reach: int = 0
    units: int = 1

    def blocks(self, max_model_len: int, in_flight: int) -> int:
        """Blocks that one request of full length holds at most; `in_flight` tokens are computed but not settled."""
        if self.kind == "sliding":
            return math.ceil(min(self.reach - 1 + in_flight, max_model_len) / self.block) + 1
        if self.kind == "chunked":
            return math.ceil(min(self.reach + in_flight, max_model_len) / self.block)
        if self.kind == "state":
            return STATES_PER_REQUEST
        return math.ceil(max_model_len / self.block)


@dataclass(frozen=True, slots=True)
class KvLayout:
    """Groups of layers that share block tables, drawing blocks of `block_bytes` from one pool on each GPU.

    layer_bytes: bytes that one request needs per layer kind, counted as the engine's check at start does.
    """

    groups: tuple[Spec, ...]
    block_bytes: int
    layers: tuple[tuple[Spec, int], ...]

    def blocks(self, available_bytes: int) -> int:
        """Blocks that this many bytes hold."""
        return max(0, available_bytes) // self.block_bytes if self.block_bytes else 0

    def blocks_per_request(self, max_model_len: int, in_flight: int) -> int:
        """Blocks that a request of full length draws over all groups."""
        return sum(group.units * group.blocks(max_model_len, in_flight) for group in self.groups)

    def max_concurrency(self, available_bytes: int, max_model_len: int, in_flight: int) -> float:
        """Requests of full length that the pool holds at once."""
        per_request = self.blocks_per_request(max_model_len, in_flight)
        return self.blocks(available_bytes) / per_request if per_request else math.inf

    def tokens(self, available_bytes: int, max_model_len: int, in_flight: int) -> int:
        """Tokens of requests of full length, as the engine logs them ("GPU KV cache size")."""
        concurrency = self.max_concurrency(available_bytes, max_model_len, in_flight)
        return int(concurrency * max_model_len) if math.isfinite(concurrency) else 0

    def bytes_for(self, requests: float, tokens: int, in_flight: int) -> int:
        """Bytes that `requests` of `tokens` each hold at once, with the block that the pool never gives out."""
        return self.block_bytes * (math.ceil(requests * self.blocks_per_request(tokens, in_flight)) + 1)

    def bytes_per_token(self) -> float:
        """Bytes of one more token of a request that is longer than every window."""
        return sum(spec.page / spec.block * count for spec, count in self.layers if spec.kind in {"full", "latent"})


def layout(
    caches: Iterable[Cache], tensor_parallel: int, item_bytes: float, state_bytes: int = 2, block: int = BLOCK_TOKENS
) -> KvLayout:
    """The layout of these layers' caches on one GPU. `item_bytes`: of one element of the KV cache."""
    held = list(caches)
    specs = [spec for cache in held for spec in cache_specs(cache, tensor_parallel, item_bytes, state_bytes, block)]
    if not specs:
        return KvLayout((), 0, ())
    if any(isinstance(cache, CompressedCache) for cache in held):
        return _packed(specs)
    kinds = _counted(_state_pages(specs))
    if len({(spec.kind, spec.reach) for spec, _ in kinds}) == 1:
        # One kind of layer: one group, whose pages may differ in size.
        return KvLayout((kinds[0][0],), sum(spec.page * count for spec, count in kinds), tuple(kinds))
    kinds = _equal_pages(kinds)
    return _grouped(kinds)


# Tokens of a page: SGLang's default is one, TensorRT-LLM's 32.
FLAT_BLOCKS = {"sglang": 1, "tensorrt-llm": 32}
# SGLang gives windowed layers a pool of this share of the others' tokens (server_args.py, swa_full_tokens_ratio).
_SGLANG_WINDOWED = 0.8


def flat_layout(caches: Iterable[Cache], tensor_parallel: int, item_bytes: float, runtime: str) -> KvLayout:
    """The layout of an engine with one token pool for all layers; recurrent states are kept beside it.

    TensorRT-LLM's pools per window are not modelled: its windowed layers count in full, which is never too little.
    """
    block = FLAT_BLOCKS[runtime]
    page = 0.0
    for cache in caches:
        for spec in cache_specs(cache, tensor_parallel, item_bytes, 2, block):
            if spec.kind != "state":
                share = _SGLANG_WINDOWED if spec.kind == "sliding" and runtime == "sglang" else 1.0
                page += spec.page / spec.block * block * share
    whole = Spec("full", block, math.ceil(page))
    return KvLayout((whole,), whole.page, ((whole, 1),))


def cache_specs(
    cache: Cache, tensor_parallel: int, item_bytes: float, state_bytes: int, block: int
) -> tuple[Spec, ...]:
    """What one cache keeps per block on one GPU."""
    if isinstance(cache, StateCache):
        conv, ssm = cache.shard(tensor_parallel)
        return (Spec("state", block, conv * state_bytes + ssm * cache.ssm_bytes),)
    if isinstance(cache, LatentCache):
        size = MLA_BLOCK_TOKENS
        pages = [Spec("latent", size, size * latent_bytes(cache, item_bytes))]
        if cache.indexer:
            pages.append(Spec("latent", size, size * cache.indexer))
        return tuple(pages)
    if isinstance(cache, CompressedCache):
        return (Spec("sliding" if cache.window else "latent", cache.block, cache.page_bytes, cache.window or 0),)
    heads = math.ceil(cache.kv_heads / tensor_parallel)
    page = math.ceil(block * heads * (cache.key_length + cache.value_length) * item_bytes)
    kind, reach = _reach(cache)
    keys = (Spec(kind, block, block * cache.indexer, reach),) if cache.indexer else ()
    return (Spec(kind, block, page, reach), *keys)


def latent_bytes(cache: LatentCache, item_bytes: float) -> int:
    """Bytes of one token's latent. In FP8, sparse attention keeps the rotary part in 16 bits.

    That is vLLM's fp8_ds_mla: 512, 16 for a scale per 128 of them, and 128 bytes make 656 for DeepSeek V3.2.
    """
    if cache.indexer and item_bytes == 1:
        compressed = cache.length - cache.rope
        return compressed + compressed // 128 * 4 + cache.rope * 2
    return math.ceil(cache.length * item_bytes)


def _packed(specs: Sequence[Spec]) -> KvLayout:
    """Pools of unlike pages side by side in one block (DeepSeek V4): counted in bytes, with what packing may waste."""
    kinds = _counted(specs)
    groups = tuple(replace(spec, units=math.ceil(spec.page * count * _PACKING)) for spec, count in kinds)
    return KvLayout(groups, 1, tuple(kinds))


def _reach(cache: AttentionCache) -> tuple[str, int]:
    if cache.window:
        return "sliding", cache.window
    if cache.chunk:
        return "chunked", cache.chunk
    return "full", 0


def _counted(specs: Sequence[Spec]) -> list[tuple[Spec, int]]:
    counts: dict[Spec, int] = {}
    for spec in specs:
        counts[spec] = counts.get(spec, 0) + 1
    return list(counts.items())


def _state_pages(specs: Sequence[Spec]) -> list[Spec]:
    """Beside recurrent layers, attention blocks grow until their page holds a state, and states are padded to it."""
    states = [spec.page for spec in specs if spec.kind == "state"]
    attention = [spec for spec in specs if spec.kind != "state"]
    if not states or not attention:
        return list(specs)
    per_token = max(spec.page / spec.block for spec in attention)
    block = math.ceil(max(states) / per_token / BLOCK_TOKENS) * BLOCK_TOKENS
    page = math.ceil(block * per_token)
    return [
        replace(spec, block=block, page=page if spec.kind == "state" else math.ceil(spec.page / spec.block * block))
        for spec in specs
    ]


def _equal_pages(kinds: Sequence[tuple[Spec, int]]) -> list[tuple[Spec, int]]:
    """Pages of one size: layers with smaller ones get more tokens per block, or padding where that does not divide."""
    page = max(spec.page for spec, _ in kinds)
    equal = []
    for spec, count in kinds:
        whole, rest = divmod(page, spec.page)
        block = spec.block * whole if rest == 0 and spec.kind != "state" else spec.block
        equal.append((replace(spec, block=block, page=page), count))
    return equal


def _grouped(kinds: Sequence[tuple[Spec, int]]) -> KvLayout:
    """Groups of equally many layers; the smallest kind sets the number, unless all are nearly as many."""
    merged = _counted_again(kinds)
    least, most = min(count for _, count in merged), max(count for _, count in merged)
    size = most if most < least * _SIMILAR else least
    groups = tuple(spec for spec, count in merged for _ in range(math.ceil(count / size)))
    return KvLayout(groups, merged[0][0].page * size, tuple(merged))


def _counted_again(kinds: Sequence[tuple[Spec, int]]) -> list[tuple[Spec, int]]:
    counts: dict[Spec, int] = {}
    for spec, count in kinds:
        counts[spec] = counts.get(spec, 0) + count
    return list(counts.items())
