"""Decoders in which most layers are recurrent: Qwen 3 Next and 3.5 with gated delta networks."""

from __future__ import annotations

from rackserve.catalog.architectures.config import Config
from rackserve.catalog.architectures.decoder import LINEAR, Dimensions, Traits, attention_parts, dimensions, moe_block
from rackserve.catalog.architectures.parts import attention, feed_forward, norms, vector
from rackserve.domain.shape import AttentionCache, Layer, Matrix, StateCache


def delta_network(config: Config, hidden: int) -> tuple[tuple[Matrix, ...], StateCache]:
    """Matrices and state of one gated delta network layer (vLLM's qwen_gdn_linear_attn.py)."""
    key_heads, key = config.integer("linear_num_key_heads"), config.integer("linear_key_head_dim")
    value_heads, value = config.integer("linear_num_value_heads"), config.integer("linear_value_head_dim")
    kernel = config.integer("linear_conv_kernel_dim")
    mixed = 2 * key_heads * key + value_heads * value
    matrices = (
        Matrix("linear_attn.in_proj_qkv", mixed, hidden, "column"),
        Matrix("linear_attn.in_proj_z", value_heads * value, hidden, "column"),
        Matrix("linear_attn.in_proj_ba", 2 * value_heads, hidden, "column"),
        Matrix("linear_attn.conv1d", mixed, kernel, "column", linear=False),
        vector("linear_attn.dt_bias", value_heads, split=True),
        vector("linear_attn.A_log", value_heads, fp32=True, split=True),
        vector("linear_attn.norm", value),
        Matrix("linear_attn.out_proj", hidden, value_heads * value, "row"),
    )
    # Qwen 3.5 states float32; where nothing is stated vLLM keeps the state in the model's data type (models/config.py).
    precise = config.text("mamba_ssm_dtype") == "float32"
    return matrices, StateCache(
        conv=mixed * (kernel - 1), ssm=value_heads * value * key, ssm_bytes=4 if precise else 2, kind="gdn"
    )


def delta_layers(config: Config, traits: Traits) -> list[Layer]:
    """Recurrent layers and, by `layer_types` or at every fourth, attention with an output gate."""
    size = dimensions(config)
    kinds = config.texts("layer_types")
    if len(kinds) < size.layers:
        period = config.integer("full_attention_interval", default=4, most=4096)
        kinds = [LINEAR if (index + 1) % period else "full_attention" for index in range(size.layers)]
    recurrent, state = delta_network(config, size.hidden)
    full = attention(
        size.hidden, size.heads, size.kv_heads, size.head_dim, size.value_dim, parts=attention_parts(config, traits)
    )
    cache = AttentionCache(size.kv_heads, size.head_dim, size.value_dim)
    layers = []
    for index in range(size.layers):
        linear = kinds[index] == LINEAR
        block = _block(config, size, index, traits)
        matrices = (*(recurrent if linear else full), *block, *norms(size.hidden, 2))
        layers.append(Layer(matrices, (state if linear else cache,)))
    return layers


def _block(config: Config, size: Dimensions, index: int, traits: Traits) -> tuple[Matrix, ...]:
    block = moe_block(config, size, index, traits) if config.has("num_experts") else None
    return block or feed_forward(size.hidden, size.intermediate)
