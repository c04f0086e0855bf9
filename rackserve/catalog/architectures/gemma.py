"""Gemma 4: wider heads and fewer of them on full-attention layers, experts beside a dense block, inputs per layer."""

from __future__ import annotations

from rackserve.catalog.architectures.config import Config
from rackserve.catalog.architectures.decoder import (
    FULL,
    SLIDING,
    Dimensions,
    Traits,
    dimensions,
    layer_kinds,
    window_of,
)
from rackserve.catalog.architectures.parts import AttentionParts, attention, experts, feed_forward, norms, vector
from rackserve.domain.shape import AttentionCache, Layer, Matrix


def gemma4_layers(config: Config, traits: Traits) -> list[Layer]:
    """All layers (vLLM's gemma4.py). The last `num_kv_shared_layers` have no keys and values of their own."""
    size = dimensions(config)
    first_shared = size.layers - config.integer("num_kv_shared_layers", default=0, least=0)
    return [
        _layer(config, size, kind, shared=index >= first_shared)
        for index, kind in enumerate(layer_kinds(config, size.layers, traits))
    ]


def _layer(config: Config, size: Dimensions, kind: str, *, shared: bool) -> Layer:
    full = kind == FULL
    head_dim = config.integer("global_head_dim", default=size.head_dim) if full else size.head_dim
    one_matrix = full and config.flag("attention_k_eq_v", default=False)
    kv_heads = config.integer("num_global_key_value_heads", default=size.kv_heads) if one_matrix else size.kv_heads
    # The engine keeps keys and values in two matrices also where the checkpoint has one (k_eq_v).
    parts = AttentionParts(own_kv=not shared)
    mixer = attention(size.hidden, size.heads, kv_heads, head_dim, head_dim, parts=parts)
    head_norms = (vector("self_attn.q_norm", head_dim), *(() if shared else (vector("self_attn.k_norm", head_dim),)))
    window, _ = window_of(config, kind) if kind == SLIDING else (None, None)
    caches = () if shared else (AttentionCache(kv_heads, head_dim, head_dim, window),)
    return Layer((*mixer, *head_norms, *_blocks(config, size, shared=shared)), caches)


def _blocks(config: Config, size: Dimensions, *, shared: bool) -> tuple[Matrix, ...]:
    wide = 2 if shared and config.flag("use_double_wide_mlp", default=False) else 1
    dense = feed_forward(size.hidden, size.intermediate * wide)
    layer_input = config.integer("hidden_size_per_layer_input", default=0, least=0)
    per_layer = (
        (
            Matrix("per_layer_input_gate", layer_input, size.hidden),
            Matrix("per_layer_projection", size.hidden, layer_input),
            *norms(size.hidden, 1),
        )
        if layer_input
        else ()
    )
    if not config.flag("enable_moe_block", default=False):
        return (*dense, *per_layer, *norms(size.hidden, 4))
    count = config.integer("num_experts")
    sparse = (
        Matrix("router.proj", count, size.hidden, linear=False),
        vector("router.scale", size.hidden + count),
        *experts(
            size.hidden, config.integer("moe_intermediate_size", "expert_intermediate_size"), count, prefix="experts"
        ),
    )
    return (*dense, *sparse, *per_layer, *norms(size.hidden, 7))


def per_layer_inputs(config: Config) -> tuple[Matrix, ...]:
    """The second embedding of the small Gemma 4 models, which gives each layer an input of its own."""
    width = config.integer("hidden_size_per_layer_input", default=0, least=0)
    if not width:
        return ()
    all_layers = width * config.integer("num_hidden_layers", most=4096)
    rows = config.integer("vocab_size_per_layer_input", default=config.integer("vocab_size"))
    return (
        Matrix("embed_tokens_per_layer", rows, all_layers, "column", linear=False),
        Matrix("per_layer_model_projection", all_layers, config.integer("hidden_size"), "column"),
        vector("per_layer_projection_norm", width),
    )
