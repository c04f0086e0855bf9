"""Vision towers of the Qwen family (vLLM's qwen2_vl.py, qwen2_5_vl.py, qwen3_vl.py; 3.5 uses the one of 3)."""

from __future__ import annotations

from rackserve.catalog.architectures.config import Config
from rackserve.catalog.architectures.towers import Encoder, loose, merger
from rackserve.domain.shape import Matrix


def _patches(vision: Config, width: int, *, bias: bool) -> Matrix:
    channels = vision.integer("in_channels", "in_chans")
    patch, frames = vision.integer("patch_size"), vision.integer("temporal_patch_size")
    return loose("visual.patch_embed", width, channels * frames * patch**2, bias=bias)


def qwen2_tower(_: Config, vision: Config, __: int) -> tuple[Matrix, ...]:
    """Qwen 2 VL: `hidden_size` is the language model's."""
    width = vision.integer("embed_dim")
    wide = width * vision.integer("spatial_merge_size", most=64) ** 2
    inner = int(width * vision.number("mlp_ratio", default=4, most=64))
    layers = vision.integer("depth", most=4096)
    return (
        *Encoder("visual.blocks", layers, width, inner).matrices(),
        _patches(vision, width, bias=False),
        *merger("visual.merger", wide, vision.integer("hidden_size"), norm_size=width, norm_bias=True),
    )


def qwen2_5_tower(_: Config, vision: Config, __: int) -> tuple[Matrix, ...]:
    """Qwen 2.5 VL: gated feed-forward blocks and RMSNorms."""
    width = vision.integer("hidden_size")
    wide = width * vision.integer("spatial_merge_size", most=64) ** 2
    encoder = Encoder(
        "visual.blocks",
        vision.integer("depth", most=4096),
        width,
        vision.integer("intermediate_size"),
        gated=True,
        norm_bias=False,
    )
    return (
        *encoder.matrices(),
        _patches(vision, width, bias=False),
        *merger("visual.merger", wide, vision.integer("out_hidden_size"), norm_size=width, norm_bias=False),
    )


def qwen3_tower(_: Config, vision: Config, __: int) -> tuple[Matrix, ...]:
    """Qwen 3 VL and 3.5: learnt positions, and a merger for each layer whose output goes deep into the decoder."""
    width, out = vision.integer("hidden_size"), vision.integer("out_hidden_size")
    wide = width * vision.integer("spatial_merge_size", most=64) ** 2
    deep = len(vision.integers("deepstack_visual_indexes"))
    layers = vision.integer("depth", most=4096)
    mergers = (
        merger("visual.deepstack_merger_list", wide, out, norm_size=wide, norm_bias=True, count=deep) if deep else ()
    )
    return (
        *Encoder("visual.blocks", layers, width, vision.integer("intermediate_size")).matrices(),
        _patches(vision, width, bias=True),
        loose("visual.pos_embed", vision.integer("num_position_embeddings"), width),
        *merger("visual.merger", wide, out, norm_size=width, norm_bias=True),
        *mergers,
    )
