"""Nemotron NAS (DeciLM): a Llama whose layers were made smaller or left out one by one."""

from __future__ import annotations

from rackserve.catalog.architectures.config import Config
from rackserve.catalog.architectures.decoder import Dimensions, Traits, attention_parts, dimensions
from rackserve.catalog.architectures.parts import attention, feed_forward, norms
from rackserve.domain.shape import AttentionCache, Layer, Matrix

# nemotron_nas.py rounds the width of a feed-forward block up to a multiple of this.
_MULTIPLE = 256


def nas_layers(config: Config, traits: Traits) -> list[Layer]:
    """As vLLM's nemotron_nas.py: `block_configs` says for each layer what is left of it."""
    size = dimensions(config.with_defaults({"intermediate_size": 1}))
    blocks = config.tables("block_configs")
    if len(blocks) != size.layers:
        config.problem("block_configs", f"has {len(blocks)} entries for {size.layers} layers")
        return []
    return [_layer(config, size, block, traits) for block in blocks]


def _layer(config: Config, size: Dimensions, block: Config, traits: Traits) -> Layer:
    matrices: tuple[Matrix, ...] = ()
    caches: tuple[AttentionCache, ...] = ()
    part = block.table("attention")
    if _kept(part):
        grouped = part.integer("n_heads_in_group", most=size.heads)
        kv_heads = max(1, size.heads // grouped)
        parts = attention_parts(config, traits)
        matrices += attention(size.hidden, size.heads, kv_heads, size.head_dim, size.head_dim, parts=parts)
        matrices += norms(size.hidden, 1)
        caches = (AttentionCache(kv_heads, size.head_dim, size.head_dim),)
    part = block.table("ffn")
    if _kept(part):
        bias = config.flag("mlp_bias", default=False)
        matrices += feed_forward(size.hidden, _width(part, size.hidden), bias=bias)
        matrices += norms(size.hidden, 1)
    return Layer(matrices, caches)


def _kept(part: Config) -> bool:
    """Whether the layer still has this part. vLLM does not serve what was replaced by one matrix."""
    if part.flag("replace_with_linear", default=False):
        part.problem("replace_with_linear", "a part replaced by one matrix is not known")
        return False
    return not part.flag("no_op", default=False)


def _width(part: Config, hidden: int) -> int:
    if not part.has("ffn_mult"):
        return part.integer("intermediate_size")
    width = int(2 * part.number("ffn_mult", default=1, most=1024) * hidden / 3)
    return -(-width // _MULTIPLE) * _MULTIPLE
