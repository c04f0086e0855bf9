"""How vLLM lays out the KV cache: groups of layers, pages and blocks, for every kind of layer. Pure arithmetic.

Follows v1/core/kv_cache_planning.py and v1/kv_cache_interface.py of vLLM 0.33; bench/accuracy compares it with that
code.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rackserve.domain.shape import AttentionCache, Cache, CompressedCache, LatentCache, StateCache

# Tokens of one block, vLLM's default on GPUs, and of the MLA kernels (FlashMLA).
BLOCK_TOKENS = 16
MLA_BLOCK_TOKENS = 64
# With prefix caching a recurrent layer keeps the running state and the last one at a block's end, and Mamba 2 one
# more for a checkpoint while prompts are read (mamba_mixer2.py).
STATES_PER_REQUEST = 2
CHECKPOINTED_STATES = 3
# Blocks of latents beside recurrent layers come in steps of the MLA kernels' own blocks.
_LATENT_STEP = 128
# vLLM pads a group to the largest kind of layer where kinds differ less than this in number.
_SIMILAR = 1.5


@dataclass(frozen=True, slots=True)
class Spec:
    """What one layer keeps per block.

    kind: full, sliding, chunked, latent or state. page: bytes of one block. reach: tokens of the window or chunk, or
    states that one request keeps.
    """

    kind: str
    block: int
    page: int
    reach: int = 0

    def blocks(self, max_model_len: int, in_flight: int) -> int:
        """Blocks that one request of full length holds at most; `in_flight` tokens are computed but not settled."""
        if self.kind == "sliding":
            return math.ceil(min(self.reach - 1 + in_flight, max_model_len) / self.block) + 1
        if self.kind == "chunked":
            return math.ceil(min(self.reach + in_flight, max_model_len) / self.block)
        if self.kind == "state":
            return self.reach
        return math.ceil(max_model_len / self.block)


@dataclass(frozen=True, slots=True)
class KvLayout:
    """Groups of layers that share block tables, drawing blocks of `block_bytes` from one pool on each GPU.

    layers: how many layers of each kind this GPU has.
    """

    groups: tuple[Spec, ...]
    block_bytes: int
    layers: tuple[tuple[Spec, int], ...]

    def blocks(self, available_bytes: int) -> int:
        """Blocks that this many bytes hold."""
        return max(0, available_bytes) // self.block_bytes if self.block_bytes else 0

    def blocks_per_request(self, max_model_len: int, in_flight: int) -> int:
        """Blocks that a request of full length draws over all groups."""
        return sum(group.blocks(max_model_len, in_flight) for group in self.groups)

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


def layout(caches: Iterable[Cache], tensor_parallel: int, item_bytes: float, state_bytes: int = 2) -> KvLayout:
    """The layout on one GPU of a model that is not split into stages."""
    held = [(cache,) for cache in caches]
    return stage_layouts(held, (len(held),), tensor_parallel, item_bytes, state_bytes)[0]


def stage_layouts(
    layers: Sequence[Sequence[Cache]],
    counts: Sequence[int],
    tensor_parallel: int,
    item_bytes: float,
    state_bytes: int = 2,
) -> tuple[KvLayout, ...]:
    """The layout on one GPU of each pipeline stage; `counts` are the layers of each, in order.

    Layers are grouped over the whole model, and every stage has its part of each group. `item_bytes`: of one element of
    the KV cache, `state_bytes` of a convolution's.
    """
    bounds = list(itertools.accumulate(counts, initial=0))
    placed = [
        (index, spec)
        for index, caches in enumerate(layers)
        for cache in caches
        for spec in cache_specs(cache, tensor_parallel, item_bytes, state_bytes, BLOCK_TOKENS)
    ]
    if any(isinstance(cache, CompressedCache) for caches in layers for cache in caches):
        groups = _packed_groups(placed)
    else:
        groups = _groups(_state_pages(placed))
    return tuple(_stage(groups, first, end) for first, end in itertools.pairwise(bounds))


# A group: what its block tables are sized by, and its layers with their pages.
_Group = tuple[Spec, list[tuple[int, Spec]]]


def _stage(groups: Sequence[_Group], first: int, end: int) -> KvLayout:
    """One stage's part of all groups; a block of the pool holds a page of each layer of the widest one."""
    parts = [[spec for index, spec in members if first <= index < end] for _, members in groups]
    block_bytes = max((sum(spec.page for spec in part) for part in parts), default=0)
    return KvLayout(
        tuple(group for group, _ in groups),
        block_bytes,
        tuple(Counter(spec for part in parts for spec in part).items()),
    )


def _groups(placed: Sequence[tuple[int, Spec]]) -> list[_Group]:
    """One group for layers of one kind, whose pages may differ; else groups of equally many layers with equal pages."""
    if not placed:
        return []
    if len({(spec.kind, spec.reach) for _, spec in placed}) == 1:
        return [(placed[0][1], list(placed))]
    kinds: dict[Spec, list[tuple[int, Spec]]] = {}
    for index, spec in _equal_pages(placed):
        kinds.setdefault(spec, []).append((index, spec))
    least, most = min(map(len, kinds.values())), max(map(len, kinds.values()))
    size = most if most < least * _SIMILAR else least
    groups: list[_Group] = []
    for spec, members in kinds.items():
        count = math.ceil(len(members) / size)
        groups.extend((spec, members[offset::count]) for offset in range(count))
    return groups


def _packed_groups(placed: Sequence[tuple[int, Spec]]) -> list[_Group]:
    """Pools of unlike pages side by side in one block (DeepSeek V4): the widest mixed pool sets the block.

    Pools of one page size that are wider than it are split.
    """
    buckets: dict[tuple[str, int, int], list[tuple[int, Spec]]] = {}
    for index, spec in placed:
        buckets.setdefault((spec.kind, spec.reach, spec.block), []).append((index, spec))
    widths = {key: sum(spec.page for _, spec in members) for key, members in buckets.items()}
    mixed = [widths[key] for key, members in buckets.items() if len({spec.page for _, spec in members}) > 1]
    block = max(mixed, default=max(widths.values()))
    groups: list[_Group] = []
    for key, members in buckets.items():
        count = math.ceil(widths[key] / block)
        groups.extend((members[0][1], members[offset::count]) for offset in range(count))
    return groups


def _state_pages(placed: Sequence[tuple[int, Spec]]) -> list[tuple[int, Spec]]:
    """Beside recurrent layers, attention blocks grow until their page holds a state, and states are padded to it."""
    states = [spec.page for _, spec in placed if spec.kind == "state"]
    attention = [spec for _, spec in placed if spec.kind != "state"]
    if not states or not attention:
        return list(placed)
    per_token = max(spec.page / spec.block for spec in attention)
    step = _LATENT_STEP if any(spec.kind == "latent" for spec in attention) else BLOCK_TOKENS
    block = math.ceil(max(states) / per_token / step) * step
    page = math.ceil(block * per_token)
    return [
        (
            index,
            replace(
                spec, block=block, page=page if spec.kind == "state" else math.ceil(spec.page / spec.block * block)
            ),
        )
        for index, spec in placed
    ]


def _equal_pages(placed: Sequence[tuple[int, Spec]]) -> list[tuple[int, Spec]]:
    """Pages of one size: layers with smaller ones get more tokens per block, or padding where that does not divide."""
    page = max(spec.page for _, spec in placed)
    equal = []
    for index, spec in placed:
        whole, rest = divmod(page, spec.page)
        block = spec.block * whole if rest == 0 and spec.kind != "state" else spec.block
        equal.append((index, replace(spec, block=block, page=page)))
    return equal


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
        kept = CHECKPOINTED_STATES if cache.kind == "mamba2" else STATES_PER_REQUEST
        return (Spec("state", block, conv * state_bytes + ssm * cache.ssm_bytes, kept),)
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
    if cache.sparse and item_bytes == 1:
        compressed = cache.length - cache.rope
        return compressed + compressed // 128 * 4 + cache.rope * 2
    return math.ceil(cache.length * item_bytes)


def _reach(cache: AttentionCache) -> tuple[str, int]:
    if cache.window:
        return "sliding", cache.window
    if cache.chunk:
        return "chunked", cache.chunk
    return "full", 0
