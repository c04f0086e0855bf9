"""Decoders with grouped-query attention: Llama and what followed it, dense and with experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rackserve.catalog.architectures.config import Config
from rackserve.catalog.architectures.parts import (
    AttentionParts,
    attention,
    experts,
    feed_forward,
    norms,
    router,
    shared_width,
)
from rackserve.domain.shape import AttentionCache, Layer, Matrix

SLIDING, CHUNKED, FULL, LINEAR = "sliding_attention", "chunked_attention", "full_attention", "linear_attention"
# Names that families gave to the number of routed experts.
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


@dataclass(frozen=True, slots=True)
class Traits:
    """What distinguishes one family from Llama.

    tied: the head is the embedding unless the config says otherwise. norms: per layer, over the hidden size; norm_bias:
    they are LayerNorms. qkv_bias, output_bias: None reads `attention_bias`. kinds: the attention kind of each layer
    where `layer_types` is absent. gated: the feed-forward block has two input matrices. router_fp32: the gate of the
    experts is in float32, router_linear: quantization reaches it. correction: it has a bias that balances their load,
    None where the config tells.
    """

    tied: bool = False
    norms: int = 2
    qkv_bias: bool | None = None
    output_bias: bool | None = None
    qk_norm: str = ""
    sinks: bool = False
    gate: bool = False
    kinds: Callable[[Config, int], Sequence[str]] | None = None
    moe: bool = False
    expert_bias: bool = False
    router_bias: bool = False
    router_fp32: bool = False
    router_linear: bool = False
    correction: bool | None = None
    gated: bool = True
    norm_bias: bool = False
    head_bias: bool = False


@dataclass(frozen=True, slots=True)
class Dimensions:
    """The sizes that every decoder states."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    intermediate: int


def dimensions(config: Config) -> Dimensions:
    """Sizes from the keys that all families share; head_dim and KV heads have Llama's defaults."""
    hidden = config.integer("hidden_size")
    heads = config.integer("num_attention_heads", most=4096)
    head_dim = config.integer("head_dim", default=max(1, hidden // heads))
    return Dimensions(
        layers=config.integer("num_hidden_layers", most=4096),
        hidden=hidden,
        heads=heads,
        kv_heads=config.integer("num_key_value_heads", "num_kv_heads", default=heads),
        head_dim=head_dim,
        value_dim=config.integer("v_head_dim", default=head_dim),
        intermediate=config.integer("intermediate_size", "moe_intermediate_size"),
    )


def every(period: int, *, full_last: bool = True) -> Callable[[Config, int], Sequence[str]]:
    """Every `period`-th layer attends to everything, the others to a window; the full one ends each period."""

    def kinds(_: Config, layers: int) -> Sequence[str]:
        offset = period - 1 if full_last else 0
        return [FULL if index % period == offset else SLIDING for index in range(layers)]

    return kinds


def pattern_key(name: str, default: int) -> Callable[[Config, int], Sequence[str]]:
    """As `every`, with the period in the config."""

    def kinds(config: Config, layers: int) -> Sequence[str]:
        return every(config.integer(name, default=default, most=4096))(config, layers)

    return kinds


def gemma2_kinds(_: Config, layers: int) -> Sequence[str]:
    """Windowed and full layers take turns, the first one is windowed."""
    return [SLIDING if index % 2 == 0 else FULL for index in range(layers)]


def layer_kinds(config: Config, layers: int, traits: Traits) -> list[str]:
    """The attention kind of each layer: stated, or the family's rule, or a window on all of them where one is set."""
    stated = config.texts("layer_types")
    if stated:
        if len(stated) < layers:
            config.problem("layer_types", f"has {len(stated)} entries for {layers} layers")
            return [FULL] * layers
        # A list may be longer: entries after the last layer belong to multi-token prediction.
        return stated[:layers]
    if traits.kinds is not None:
        return list(traits.kinds(config, layers))
    windowed = config.has("sliding_window") and config.flag("use_sliding_window", default=True)
    return [SLIDING if windowed else FULL] * layers


def window_of(config: Config, kind: str) -> tuple[int | None, int | None]:
    """Window and chunk of a layer of this kind, in tokens."""
    if kind == SLIDING:
        return config.optional("sliding_window"), None
    if kind == CHUNKED:
        return None, config.optional("attention_chunk_size")
    if kind != FULL:
        config.problem("layer_types", f"{kind} is not known", hint=f"known: {FULL}, {SLIDING}, {CHUNKED}")
    return None, None


def decoder_layers(config: Config, traits: Traits) -> list[Layer]:
    """All layers of a family that differs from Llama in its traits only."""
    size = dimensions(config)
    parts = attention_parts(config, traits)
    kinds = layer_kinds(config, size.layers, traits)
    mixer = attention(size.hidden, size.heads, size.kv_heads, size.head_dim, size.value_dim, parts=parts)
    layers = []
    for index, kind in enumerate(kinds):
        window, chunk = window_of(config, kind)
        cache = AttentionCache(size.kv_heads, size.head_dim, size.value_dim, window or None, chunk or None)
        block = moe_block(config, size, index, traits) if traits.moe else None
        if block is None:
            bias = config.flag("mlp_bias", default=config.flag("use_bias", default=False))
            block = feed_forward(size.hidden, size.intermediate, bias=bias, gated=traits.gated)
        outer = norms(size.hidden, traits.norms, bias=traits.norm_bias)
        layers.append(Layer((*mixer, *block, *outer), (cache,)))
    return layers


def attention_parts(config: Config, traits: Traits) -> AttentionParts:
    """How the family's attention differs, with what the config says of biases and norms."""
    bias = config.flag("attention_bias", default=config.flag("use_bias", default=config.flag("bias", default=False)))
    qk_norm = traits.qk_norm
    if config.has("use_qk_norm"):
        qk_norm = (qk_norm or "head") if config.flag("use_qk_norm", default=False) else ""
    return AttentionParts(
        qkv_bias=bias if traits.qkv_bias is None else traits.qkv_bias,
        output_bias=config.flag("attention_out_bias", default=bias)
        if traits.output_bias is None
        else traits.output_bias,
        qk_norm=qk_norm,
        sinks=traits.sinks,
        gate=traits.gate and config.flag("attn_output_gate", default=True),
    )


def moe_block(config: Config, size: Dimensions, index: int, traits: Traits) -> tuple[Matrix, ...] | None:
    """Router, experts and shared expert of layer `index`, None where the layer is dense."""
    if not has_experts(config, size.layers, index):
        return None
    count = expert_count(config)
    width = config.integer("moe_intermediate_size", default=size.intermediate)
    correction = traits.correction
    if correction is None:
        correction = config.has("routed_scaling_factor") or config.flag("use_routing_bias", default=False)
    return (
        *router(
            size.hidden,
            count,
            bias=traits.router_bias,
            correction=correction,
            fp32=traits.router_fp32,
            linear=traits.router_linear,
        ),
        *experts(size.hidden, width, count, bias=traits.expert_bias),
        *shared_expert(config, size.hidden, width),
    )


def has_experts(config: Config, layers: int, index: int) -> bool:
    """Whether layer `index` has experts, under all the names that families gave to saying so."""
    if index in config.sequence("mlp_only_layers"):
        return False
    if isinstance(config.values.get("moe_layer_freq"), list):
        stated = config.integers("moe_layer_freq")
        return index < len(stated) and stated[index] > 0
    first = config.integer("first_k_dense_replace", "moe_layer_start_index", default=0, least=0)
    last = config.integer("moe_layer_end_index", default=layers, least=0)
    step = config.integer("decoder_sparse_step", "moe_layer_freq", "moe_layer_interval", default=1)
    return first <= index <= last and (index + 1) % step == 0


def expert_count(config: Config) -> int:
    """Routed experts, under the names that families gave them."""
    return config.integer(*EXPERT_COUNTS, most=65536)


def shared_expert(config: Config, hidden: int, width: int) -> tuple[Matrix, ...]:
    """The expert that every token passes through; Qwen gives it a gate of its own."""
    if config.integer("shared_expert_intermediate_size", default=0, least=0):
        own = config.integer("shared_expert_intermediate_size")
        gate = Matrix("mlp.shared_expert_gate", 1, hidden, linear=False)
        return (*feed_forward(hidden, own, prefix="mlp.shared_expert"), gate)
    shared = shared_width(config, width) or config.integer("shared_intermediate_size", default=0, least=0)
    return feed_forward(hidden, shared, prefix="mlp.shared_experts") if shared else ()
