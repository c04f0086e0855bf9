"""Decoders with multi-head latent attention: DeepSeek V2 and V3, Kimi K2, and with a sparse indexer V3.2 and GLM 5."""

from __future__ import annotations

from dataclasses import replace

from rackserve.catalog.architectures.config import Config
from rackserve.catalog.architectures.decoder import Dimensions, Traits, dimensions, moe_block
from rackserve.catalog.architectures.parts import feed_forward, norms, vector
from rackserve.domain.shape import LatentCache, Layer, Matrix


def latent_attention(config: Config, hidden: int, heads: int) -> tuple[Matrix, ...]:
    """The projections of one MLA layer; those into the latent space are on every GPU (vLLM's deepseek_v2.py)."""
    rank = config.integer("kv_lora_rank")
    rope, nope = config.integer("qk_rope_head_dim"), config.integer("qk_nope_head_dim")
    value = config.integer("v_head_dim")
    query_rank = config.optional("q_lora_rank")
    if query_rank:
        query: tuple[Matrix, ...] = (
            Matrix("self_attn.q_a_proj", query_rank, hidden),
            vector("self_attn.q_a_layernorm", query_rank),
            Matrix("self_attn.q_b_proj", heads * (nope + rope), query_rank, "column"),
        )
    else:
        query = (Matrix("self_attn.q_proj", heads * (nope + rope), hidden, "column"),)
    return (
        *query,
        Matrix("self_attn.kv_a_proj_with_mqa", rank + rope, hidden),
        vector("self_attn.kv_a_layernorm", rank),
        Matrix("self_attn.kv_b_proj", heads * (nope + value), rank, "column"),
        Matrix("self_attn.o_proj", hidden, heads * value, "row"),
    )


def indexer(config: Config, hidden: int) -> tuple[Matrix, ...]:
    """The lightning indexer of sparse attention (vLLM's deepseek_v2.py, Indexer): all of it on every GPU.

    vLLM joins `wk` and `weights_proj` into one matrix of the model's data type, whatever the checkpoint's quantization.
    """
    heads, size = config.integer("index_n_heads"), config.integer("index_head_dim")
    return (
        Matrix("self_attn.indexer.wq_b", heads * size, config.integer("q_lora_rank")),
        Matrix("self_attn.indexer.wk", size, hidden, linear=False),
        Matrix("self_attn.indexer.k_norm", size, 2, linear=False, stored="fp32"),
        Matrix("self_attn.indexer.weights_proj", heads, hidden, linear=False),
    )


def indexer_bytes(config: Config) -> int:
    """Bytes per token of the indexer's keys: FP8, with one fp32 scale per 128 of them."""
    size = config.integer("index_head_dim")
    return size + size // 128 * 4


def indexed_layers(config: Config, layers: int) -> list[bool]:
    """Which layers choose tokens themselves; the others use the choice of one before (GLM 5.2; deepseek_v2.py)."""
    if not config.has("index_topk"):
        return [False] * layers
    if config.has("index_topk_pattern"):
        pattern = config.values.get("index_topk_pattern")
        letters = pattern if isinstance(pattern, str) else "".join(config.texts("index_topk_pattern"))
        return [letters[index : index + 1] != "S" for index in range(layers)]
    period = config.integer("index_topk_freq", default=1, most=4096)
    offset = config.integer("index_skip_topk_offset", default=2, least=0, most=4096)
    return [max(index - offset + 1, 0) % period == 0 for index in range(layers)]


def latent_layers(config: Config, traits: Traits) -> list[Layer]:
    """All layers; the first ones (`first_k_dense_replace`) are dense."""
    size = dimensions(config.with_defaults({"num_key_value_heads": config.values.get("num_attention_heads")}))
    mixer = latent_attention(config, size.hidden, size.heads)
    rope = config.integer("qk_rope_head_dim")
    sparse = config.has("index_topk")
    cache = LatentCache(length=config.integer("kv_lora_rank") + rope, rope=rope, sparse=sparse)
    own = indexer(config, size.hidden) if sparse else ()
    layers = []
    for index, indexed in enumerate(indexed_layers(config, size.layers)):
        matrices = (*mixer, *(own if indexed else ()), *_block(config, size, index, traits), *norms(size.hidden, 2))
        kept = replace(cache, indexer=indexer_bytes(config)) if indexed else cache
        layers.append(Layer(matrices, (kept,)))
    return layers


def _block(config: Config, size: Dimensions, index: int, traits: Traits) -> tuple[Matrix, ...]:
    # Only this method of choosing experts has a bias that balances their load.
    traits = replace(traits, correction=config.text("topk_method") == "noaux_tc")
    block = moe_block(config, size, index, traits) if config.has("n_routed_experts") else None
    return block or feed_forward(size.hidden, size.intermediate)
