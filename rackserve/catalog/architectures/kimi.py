"""Kimi Linear and Kimi K3: delta attention (KDA) on most layers, latent attention without positions on the others."""

from __future__ import annotations

from rackserve.catalog.architectures.config import Config
from rackserve.catalog.architectures.decoder import Dimensions, Traits, dimensions, expert_count, has_experts
from rackserve.catalog.architectures.latent import latent_attention
from rackserve.catalog.architectures.parts import experts, feed_forward, norms, router, shared_width, vector
from rackserve.domain.shape import LatentCache, Layer, Matrix, StateCache


def kimi_layers(config: Config, _: Traits) -> list[Layer]:
    """As vLLM's models/kimi_k3. The lists of layers in `linear_attn_config` count from one."""
    size = dimensions(config.with_defaults({"num_key_value_heads": config.values.get("num_attention_heads")}))
    linear = config.table("linear_attn_config")
    recurrent_layers, full_layers = set(linear.integers("kda_layers")), set(linear.integers("full_attn_layers"))
    if recurrent_layers | full_layers != set(range(1, size.layers + 1)) or recurrent_layers & full_layers:
        linear.problem("kda_layers", f"and full_attn_layers together have to name each of {size.layers} layers once")
        return []
    recurrent, state = _delta(linear, size.hidden) if recurrent_layers else ((), None)
    full = latent_attention(config, size.hidden, size.heads)
    if config.flag("mla_use_output_gate", default=False):
        full += (Matrix("self_attn.g_proj", size.heads * config.integer("v_head_dim"), size.hidden, "column"),)
    rope = config.integer("qk_rope_head_dim")
    latent = LatentCache(length=config.integer("kv_lora_rank") + rope, rope=rope)
    joints = _joints(config, size.hidden)
    layers = []
    for index in range(size.layers):
        is_recurrent = index + 1 in recurrent_layers
        outer = (*_block(config, size, index), *joints, *norms(size.hidden, 2))
        cache = state if is_recurrent and state is not None else latent
        layers.append(Layer((*(recurrent if is_recurrent else full), *outer), (cache,)))
    return layers


def kimi_final(config: Config) -> tuple[Matrix, ...]:
    """K3 chooses between residuals of several layers once more before the head."""
    return (vector("output_attn_res", 2 * config.integer("hidden_size")),) if config.has("attn_res_block_size") else ()


def _joints(config: Config, hidden: int) -> tuple[Matrix, ...]:
    """A norm and a weight for each of the two places where a layer chooses between residuals."""
    return (vector("res", 4 * hidden),) if config.has("attn_res_block_size") else ()


def _delta(linear: Config, hidden: int) -> tuple[tuple[Matrix, ...], StateCache]:
    """Kimi delta attention: low-rank halves of its gates are repeated on every GPU, its convolution is in float32."""
    heads, head = linear.integer("num_heads", most=4096), linear.integer("head_dim")
    kernel, width = linear.integer("short_conv_kernel_size", most=4096), heads * head
    if linear.flag("use_full_rank_gate", default=False):
        gate: tuple[Matrix, ...] = (Matrix("self_attn.g_proj", width, hidden, "column"),)
    else:
        gate = (Matrix("self_attn.g_a_proj", head, hidden), Matrix("self_attn.g_b_proj", width, head, "column"))
    matrices = (
        Matrix("self_attn.qkv_proj", 3 * width, hidden, "column"),
        *gate,
        Matrix("self_attn.f_a_proj", head, hidden),
        Matrix("self_attn.f_b_proj", width, head, "column"),
        Matrix("self_attn.b_proj", heads, hidden, "column"),
        Matrix("self_attn.conv1d", 3 * width, kernel, "column", linear=False, stored="fp32"),
        vector("self_attn.dt_bias", width, fp32=True, split=True),
        vector("self_attn.A_log", heads, fp32=True, split=True),
        vector("self_attn.o_norm", head),
        Matrix("self_attn.o_proj", hidden, width, "row"),
    )
    return matrices, StateCache(conv=3 * width * (kernel - 1), ssm=width * head, ssm_bytes=4, kind="kda")


def _block(config: Config, size: Dimensions, index: int) -> tuple[Matrix, ...]:
    if not config.has("num_experts") or not has_experts(config, size.layers, index):
        return feed_forward(size.hidden, size.intermediate)
    count, width = expert_count(config), config.integer("moe_intermediate_size")
    prefix = "block_sparse_moe"
    latent = config.optional("routed_expert_hidden_size")
    between: tuple[Matrix, ...] = ()
    if latent:
        between = (
            Matrix(f"{prefix}.routed_expert_down_proj", latent, size.hidden, linear=False),
            Matrix(f"{prefix}.routed_expert_up_proj", size.hidden, latent, linear=False),
        )
        if config.flag("latent_moe_use_norm", default=False):
            between += (vector(f"{prefix}.routed_expert_norm", latent),)
    own = shared_width(config, width)
    return (
        *router(size.hidden, count, correction=True, prefix=prefix),
        *experts(latent or size.hidden, width, count, prefix=f"{prefix}.experts"),
        *between,
        *(feed_forward(size.hidden, own, prefix=f"{prefix}.shared_experts") if own else ()),
    )
