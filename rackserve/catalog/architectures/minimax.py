"""MiniMax M3: attention that chooses blocks of tokens with an indexer of its own, and experts."""

from __future__ import annotations

from rackserve.catalog.architectures.config import Config
from rackserve.catalog.architectures.decoder import Dimensions, Traits, dimensions, expert_count, has_experts
from rackserve.catalog.architectures.parts import (
    AttentionParts,
    attention,
    experts,
    feed_forward,
    norms,
    router,
    vector,
)
from rackserve.domain.shape import AttentionCache, Layer, Matrix


def minimax_m3_layers(config: Config, traits: Traits) -> list[Layer]:
    """As vLLM's models/minimax_m3: the indexer's queries are split by heads, its one key is repeated on every GPU."""
    size = dimensions(config)
    choice = config.table("sparse_attention_config")
    chooses = choice.integers("sparse_attention_freq")
    if not choice.flag("use_sparse_attention", default=bool(chooses)):
        chooses = []
    parts = AttentionParts(qk_norm="head" if config.flag("use_qk_norm", default=True) else "")
    mixer = attention(size.hidden, size.heads, size.kv_heads, size.head_dim, size.head_dim, parts=parts)
    index_size = choice.integer("sparse_index_dim") if any(chooses) else 0
    sparse = (*mixer, *_indexer(choice, size.hidden, index_size)) if index_size else mixer
    layers = []
    for index in range(size.layers):
        chosen = index < len(chooses) and chooses[index] > 0
        # Its key is kept in the model's data type.
        cache = AttentionCache(size.kv_heads, size.head_dim, size.head_dim, indexer=2 * index_size if chosen else 0)
        block = _block(config, size, traits, sparse=has_experts(config, size.layers, index))
        layers.append(Layer((*(sparse if chosen else mixer), *block, *norms(size.hidden, 2)), (cache,)))
    return layers


def _indexer(choice: Config, hidden: int, size: int) -> tuple[Matrix, ...]:
    heads = choice.integer("sparse_num_index_heads", most=4096)
    return (
        Matrix("self_attn.index_q_proj", heads * size, hidden, "column", heads=heads),
        Matrix("self_attn.index_k_proj", size, hidden),
        vector("self_attn.index_norm", 2 * size),
    )


def _block(config: Config, size: Dimensions, traits: Traits, *, sparse: bool) -> tuple[Matrix, ...]:
    if not sparse:
        return feed_forward(size.hidden, config.integer("dense_intermediate_size", default=size.intermediate))
    count = expert_count(config)
    width = config.integer("moe_intermediate_size", default=size.intermediate)
    shared = config.integer("n_shared_experts", default=0, least=0)
    own = config.integer("shared_intermediate_size", default=width) * shared
    prefix = "block_sparse_moe"
    correction = config.flag("use_routing_bias", default=False)
    return (
        *router(size.hidden, count, correction=correction, fp32=traits.router_fp32, prefix=prefix),
        *experts(size.hidden, width, count, prefix=f"{prefix}.experts"),
        *(feed_forward(size.hidden, own, prefix=f"{prefix}.shared_experts") if own else ()),
    )
