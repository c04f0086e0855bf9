"""Llama 4: experts in every second or every layer, attention in chunks on three layers of four."""

from __future__ import annotations

from rackserve.catalog.architectures.config import Config
from rackserve.catalog.architectures.decoder import CHUNKED, FULL, Traits, dimensions
from rackserve.catalog.architectures.parts import AttentionParts, attention, experts, feed_forward, norms, router
from rackserve.domain.shape import AttentionCache, Layer


def llama4_layers(config: Config, _: Traits) -> list[Layer]:
    """All layers (vLLM's llama4.py): layers without rotary embedding attend to everything."""
    size = dimensions(config)
    step = config.integer("interleave_moe_layer_step", default=1)
    stated = config.sequence("moe_layers")
    full = _full_layers(config, size.layers)
    mixer = attention(size.hidden, size.heads, size.kv_heads, size.head_dim, size.value_dim, parts=AttentionParts())
    chunk = config.integer("attention_chunk_size")
    count = config.integer("num_local_experts")
    sparse = (
        *router(size.hidden, count),
        *experts(size.hidden, size.intermediate, count),
        *feed_forward(size.hidden, size.intermediate, prefix="mlp.shared_expert"),
    )
    dense = feed_forward(size.hidden, config.integer("intermediate_size_mlp", default=size.intermediate))
    layers = []
    for index in range(size.layers):
        has_experts = index in stated if stated else (index + 1) % step == 0
        cache = AttentionCache(size.kv_heads, size.head_dim, size.value_dim, chunk=None if full[index] else chunk)
        block = sparse if has_experts else dense
        layers.append(Layer((*mixer, *block, *norms(size.hidden, 2)), (cache,)))
    return layers


def _full_layers(config: Config, layers: int) -> list[bool]:
    kinds = config.texts("layer_types")
    if len(kinds) >= layers:
        return [kind != CHUNKED and kind == FULL for kind in kinds]
    rotary = config.sequence("no_rope_layers")
    if len(rotary) >= layers:
        return [entry == 0 for entry in rotary]
    period = config.integer("no_rope_layer_interval", default=4)
    return [(index + 1) % period == 0 for index in range(layers)]
