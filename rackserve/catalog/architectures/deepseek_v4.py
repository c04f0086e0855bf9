"""DeepSeek V4: compressed attention, several residual streams, and experts that the token alone may choose.

Keys and values are compressed over 4 or 128 tokens beside a window of whole ones, and output projections are grouped.
"""

from __future__ import annotations

from rackserve.catalog.architectures.config import Config
from rackserve.catalog.architectures.decoder import Traits, expert_count
from rackserve.catalog.architectures.parts import experts, feed_forward, norms, router, vector
from rackserve.domain.shape import CompressedCache, Layer, Matrix

# FP8 keys with their rotary part in 16 bit and their scales: vLLM's fp8_ds_mla layout for V4.
_STATE_BYTES = 584
# An indexer's FP8 key of 128 elements with one fp32 scale.
_WINDOW_BLOCK, _COMPRESSED_BLOCK = 64, 256
# Tokens per block of a compressor's own state, which is in float32 (vLLM's models/deepseek_v4).
_COMPRESSOR_BLOCK = {4: 4, 128: 8}
_OVERLAPPING = 4
_KNOWN_RATIOS = (0, 1, *_COMPRESSOR_BLOCK)


def deepseek_v4_layers(config: Config, _: Traits) -> list[Layer]:
    """As vLLM's models/deepseek_v4/nvidia/model.py."""
    layers = config.integer("num_hidden_layers", most=4096)
    ratios = config.integers("compress_ratios")
    if len(ratios) < layers or any(ratio not in _KNOWN_RATIOS for ratio in ratios):
        config.problem("compress_ratios", f"expected at least {layers} entries, each of {_KNOWN_RATIOS}")
        return []
    hidden = config.integer("hidden_size")
    hashed = config.integer("num_hash_layers", default=0, least=0)
    mixer = (*_attention(config, hidden), *_streams(config, hidden), *norms(hidden, 2))
    window = _keys(1, _WINDOW_BLOCK, window=config.integer("sliding_window"))
    made = []
    for index, ratio in enumerate(ratios[:layers]):
        matrices, caches = _compressed(config, hidden, ratio) if ratio > 1 else ((), ())
        block = _experts(config, hidden, hashed=index < hashed)
        made.append(Layer((*mixer, *matrices, *block), (window, *caches)))
    return made


def deepseek_v4_final(config: Config) -> tuple[Matrix, ...]:
    """What joins the residual streams before the head."""
    streams, hidden = config.integer("hc_mult", most=1024), config.integer("hidden_size")
    size = streams * streams * hidden + streams + 1
    return (vector("hc_head", size, fp32=True),)


def _streams(config: Config, hidden: int) -> tuple[Matrix, ...]:
    """Hyper-connections: how attention and experts mix the residual streams, all of it on every GPU in float32."""
    streams = config.integer("hc_mult", most=1024)
    mixes = (2 + streams) * streams
    return (vector("hc", 2 * (mixes * streams * hidden + mixes + 3), fp32=True),)


def _attention(config: Config, hidden: int) -> tuple[Matrix, ...]:
    heads, head = config.integer("num_attention_heads", most=4096), config.integer("head_dim")
    rank = config.integer("q_lora_rank")
    groups, out_rank = config.integer("o_groups", most=4096), config.integer("o_lora_rank")
    return (
        Matrix("attn.wq_a", rank, hidden),
        Matrix("attn.wkv", head, hidden),
        Matrix("attn.wq_b", heads * head, rank, "column"),
        Matrix("attn.wo_a", groups * out_rank, max(1, heads * head // groups), "column"),
        Matrix("attn.wo_b", hidden, groups * out_rank, "row"),
        vector("attn.attn_sink", heads, fp32=True, split=True),
        vector("attn.norm", rank + head),
    )


def _compressed(config: Config, hidden: int, ratio: int) -> tuple[tuple[Matrix, ...], tuple[CompressedCache, ...]]:
    """The compressor of one layer, and at the small ratio an indexer with a compressor of its own."""
    head = config.integer("head_dim")
    matrices = _compressor("attn.compressor", hidden, head, ratio)
    block = _COMPRESSOR_BLOCK[ratio]
    caches = (_keys(ratio, _COMPRESSED_BLOCK), _running("compressor", head, ratio, block))
    if ratio != _OVERLAPPING:
        return matrices, caches
    index_heads, index_head = config.integer("index_n_heads", most=4096), config.integer("index_head_dim")
    matrices += (
        Matrix("attn.indexer.wq_b", index_heads * index_head, config.integer("q_lora_rank")),
        Matrix("attn.indexer.weights_proj", index_heads, hidden, linear=False),
        *_compressor("attn.indexer.compressor", hidden, index_head, ratio),
    )
    keys = CompressedCache("indexer", index_head + index_head // 128 * 4, ratio, _COMPRESSED_BLOCK)
    return matrices, (*caches, keys, _running("indexer compressor", index_head, ratio, block))


def _compressor(prefix: str, hidden: int, head: int, ratio: int) -> tuple[Matrix, ...]:
    # At the small ratio neighbouring groups overlap, so that there are two of everything.
    width = head * (2 if ratio == _OVERLAPPING else 1)
    return (
        vector(f"{prefix}.ape", ratio * width, fp32=True),
        Matrix(f"{prefix}.wkv_wgate", 2 * width, hidden, linear=False),
        vector(f"{prefix}.norm", head),
    )


def _keys(ratio: int, block: int, window: int | None = None) -> CompressedCache:
    return CompressedCache("window" if window else "compressed", _STATE_BYTES, ratio, block, window)


def _running(name: str, head: int, ratio: int, block: int) -> CompressedCache:
    """What a compressor has not yet compressed: keys and gates of its last tokens, in float32."""
    overlap = 2 if ratio == _OVERLAPPING else 1
    return CompressedCache(name, 2 * overlap * head * 4, 1, block, overlap * ratio)


def _experts(config: Config, hidden: int, *, hashed: bool) -> tuple[Matrix, ...]:
    count, width = expert_count(config), config.integer("moe_intermediate_size")
    shared = config.integer("n_shared_experts", default=0, least=0)
    chosen = config.integer("num_experts_per_tok", most=65536)
    table = Matrix("ffn.gate.tid2eid", config.integer("vocab_size"), chosen, linear=False, stored="fp32")
    return (
        *router(hidden, count, correction=not hashed, prefix="ffn"),
        *((table,) if hashed else ()),
        *experts(hidden, width, count, prefix="ffn.experts"),
        *(feed_forward(hidden, shared * width, prefix="ffn.shared_experts") if shared else ()),
    )
