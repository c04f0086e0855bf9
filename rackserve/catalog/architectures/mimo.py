"""MiMo V2 Flash: windowed layers with more KV heads than the full ones, values narrower than keys, experts."""

from __future__ import annotations

from dataclasses import replace

from rackserve.catalog.architectures.config import Config
from rackserve.catalog.architectures.decoder import Dimensions, Traits, dimensions, moe_block
from rackserve.catalog.architectures.parts import AttentionParts, attention, feed_forward, norms
from rackserve.domain.shape import AttentionCache, Layer, Matrix


def mimo_layers(config: Config, traits: Traits) -> list[Layer]:
    """As vLLM's mimo_v2.py: `hybrid_layer_pattern` has a 1 for each windowed layer."""
    size = dimensions(config)
    pattern = config.integers("hybrid_layer_pattern")
    if len(pattern) != size.layers:
        config.problem("hybrid_layer_pattern", f"has {len(pattern)} entries for {size.layers} layers")
        return []
    full = _attention(config, size, sinks="add_full_attention_sink_bias", window=None)
    windowed_size = replace(
        size,
        heads=config.integer("swa_num_attention_heads", default=size.heads, most=4096),
        kv_heads=config.integer("swa_num_key_value_heads", default=size.kv_heads),
        head_dim=config.integer("swa_head_dim", default=size.head_dim),
        value_dim=config.integer("swa_v_head_dim", default=size.value_dim),
    )
    window = config.integer("sliding_window", "sliding_window_size")
    windowed = _attention(config, windowed_size, sinks="add_swa_attention_sink_bias", window=window)
    layers = []
    for index, is_windowed in enumerate(pattern):
        mixer, cache = windowed if is_windowed else full
        block = moe_block(config, size, index, traits) or feed_forward(size.hidden, size.intermediate)
        layers.append(Layer((*mixer, *block, *norms(size.hidden, 2)), (cache,)))
    return layers


def _attention(
    config: Config, size: Dimensions, *, sinks: str, window: int | None
) -> tuple[tuple[Matrix, ...], AttentionCache]:
    bias = config.flag("attention_bias", default=False)
    parts = AttentionParts(qkv_bias=bias, sinks=config.flag(sinks, default=False))
    matrices = attention(size.hidden, size.heads, size.kv_heads, size.head_dim, size.value_dim, parts=parts)
    return matrices, AttentionCache(size.kv_heads, size.head_dim, size.value_dim, window)
