"""Towers that turn images into tokens, and what joins them to the language model, by `model_type`.

Read from vLLM 0.33's model classes and compared byte for byte with what vLLM 0.32 allocates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rackserve.catalog.architectures.config import Config
from rackserve.catalog.architectures.defaults import tower_defaults
from rackserve.catalog.architectures.gemma_towers import gemma3_tower, gemma4_tower
from rackserve.catalog.architectures.qwen_towers import qwen2_5_tower, qwen2_tower, qwen3_tower
from rackserve.catalog.architectures.towers import Encoder, loose, norm
from rackserve.domain.shape import Matrix


def llama4_tower(_: Config, vision: Config, hidden: int) -> tuple[Matrix, ...]:
    """mllama4.py: never quantized."""
    width, intermediate = vision.integer("hidden_size"), vision.integer("intermediate_size")
    patch, image = vision.integer("patch_size"), vision.integer("image_size")
    joined, out = vision.integer("projector_input_dim"), vision.integer("projector_output_dim")
    encoder = Encoder(
        "vision_model.model.layers",
        vision.integer("num_hidden_layers", most=4096),
        width,
        intermediate,
        quantizable=(False, False),
    )
    return (
        *encoder.matrices(),
        loose("vision_model.class_embedding", width),
        loose("vision_model.positional_embedding_vlm", (image // patch) ** 2 + 1, width),
        loose("vision_model.patch_embedding", width, vision.integer("num_channels") * patch**2, split="column"),
        norm("vision_model.layernorm", 2 * width, bias=True),
        Matrix("vision_model.vision_adapter.fc1", joined, intermediate, "column", linear=False),
        Matrix("vision_model.vision_adapter.fc2", out, joined, "row", linear=False),
        Matrix("multi_modal_projector.linear_1", hidden, vision.integer("vision_output_dim"), "column", linear=False),
    )


def pixtral_tower(config: Config, vision: Config, hidden: int) -> tuple[Matrix, ...]:
    """pixtral.py and mistral3.py."""
    width, patch = vision.integer("hidden_size"), vision.integer("patch_size")
    merge = config.integer("spatial_merge_size", default=2, most=64)
    encoder = Encoder(
        "vision_tower.transformer.layers",
        vision.integer("num_hidden_layers", most=4096),
        width,
        vision.integer("intermediate_size"),
        gated=True,
        bias=False,
        norm_bias=False,
    )
    bias = config.flag("multimodal_projector_bias", default=False)
    return (
        *encoder.matrices(),
        loose("vision_tower.patch_conv", width, vision.integer("num_channels") * patch**2),
        norm("vision_tower.ln_pre", width, bias=False),
        norm("multi_modal_projector.norm", width, bias=False),
        loose("multi_modal_projector.patch_merger.merging_layer", width, width * merge**2),
        Matrix("multi_modal_projector.linear_1", hidden, width, "column", bias=bias),
        Matrix("multi_modal_projector.linear_2", hidden, hidden, "row", bias=bias),
    )


def kimi_tower(_: Config, vision: Config, hidden: int) -> tuple[Matrix, ...]:
    """kimi_k25_vit.py: MoonViT and its projector, which is repeated on every GPU."""
    width, patch = vision.integer("vt_hidden_size"), vision.integer("patch_size")
    layered = vision.text("norm_type", "layernorm") == "layernorm"
    heights = vision.integer("init_pos_emb_height") * vision.integer("init_pos_emb_width")
    merge_rows, merge_columns = vision.pair("merge_kernel_size") if vision.has("merge_kernel_size") else (2, 2)
    wide = width * merge_rows * merge_columns
    encoder = Encoder(
        "vision_tower.encoder.blocks",
        vision.integer("vt_num_hidden_layers", most=4096),
        width,
        vision.integer("vt_intermediate_size"),
        bias=vision.flag("attn_bias", default=True),
        mlp_bias=vision.flag("linear_bias", default=True),
        norm_bias=layered,
        inner=vision.integer("qkv_hidden_size", default=width),
        units=vision.integer("vt_num_attention_heads", most=4096),
    )
    second = vision.text("mm_projector_type", "patchmerger") == "patchmergerv2"
    ending = norm("mm_projector.norm", hidden if second else width, bias=not second)
    return (
        *encoder.matrices(),
        loose("vision_tower.patch_embed", width, 3 * patch**2, bias=vision.flag("patch_embed_proj_bias", default=True)),
        loose("vision_tower.patch_embed.pos_emb", heights, width),
        norm("vision_tower.encoder.final_layernorm", width, bias=layered),
        ending,
        Matrix("mm_projector.linear_1", wide, wide, bias=not second),
        Matrix("mm_projector.linear_2", hidden, wide, bias=not second),
    )


def minimax_tower(config: Config, vision: Config, hidden: int) -> tuple[Matrix, ...]:
    """minimax_m3: a CLIP encoder, a projector, and a second one over joined patches."""
    width, patch = vision.integer("hidden_size"), vision.integer("patch_size")
    joining = config.table("img_token_compression_config")
    merge = joining.integer("spatial_merge_size", default=2, most=64)
    frames = joining.integer("temporal_patch_size", default=2, most=64)
    middle = config.integer("projector_hidden_size", default=vision.integer("projection_dim", default=hidden))
    encoder = Encoder(
        "vision_tower.vision_model.encoder.layers",
        vision.integer("num_hidden_layers", most=4096),
        width,
        vision.integer("intermediate_size"),
    )
    return (
        *encoder.matrices(),
        loose("vision_tower.patch_embedding", width, vision.integer("num_channels") * frames * patch**2),
        norm("vision_tower.pre_layrnorm", width, bias=True),
        Matrix("multi_modal_projector.linear_1", middle, width, "column", bias=True),
        Matrix("multi_modal_projector.linear_2", hidden, middle, "row", bias=True),
        Matrix("patch_merge_mlp.linear_1", middle, hidden * merge**2, "column", bias=True),
        Matrix("patch_merge_mlp.linear_2", hidden, middle, "row", bias=True),
    )


@dataclass(frozen=True, slots=True)
class Tower:
    """How a family's tower is read, and the name of its defaults."""

    read: Callable[[Config, Config, int], tuple[Matrix, ...]]
    defaults: str


TOWERS: Mapping[str, Tower] = {
    "gemma3": Tower(gemma3_tower, "siglip_vision_model"),
    "gemma4": Tower(gemma4_tower, "gemma4_vision"),
    "kimi_k25": Tower(kimi_tower, "kimi_k25"),
    "kimi_k3": Tower(kimi_tower, "kimi_k3"),
    "llama4": Tower(llama4_tower, "llama4_vision_model"),
    "minimax_m3_vl": Tower(minimax_tower, "minimax_m3_vl"),
    "mistral3": Tower(pixtral_tower, "pixtral"),
    "qwen2_vl": Tower(qwen2_tower, "qwen2_vl"),
    "qwen2_5_vl": Tower(qwen2_5_tower, "qwen2_5_vl"),
    "qwen3_vl": Tower(qwen3_tower, "qwen3_vl"),
    "qwen3_vl_moe": Tower(qwen3_tower, "qwen3_vl"),
    "qwen3_5": Tower(qwen3_tower, "qwen3_5"),
    "qwen3_5_moe": Tower(qwen3_tower, "qwen3_5"),
}
# The one kind of tower that each family which states it may have.
_KINDS = {"gemma3": "siglip_vision_model", "mistral3": "pixtral"}
# Towers for sound are read with the family's own reader.
_HEARING = ("gemma4",)


def tower(config: Config, hidden: int) -> tuple[Matrix, ...]:
    """The matrices beside the language model; none for text-only checkpoints. An unknown tower is a problem."""
    family = config.text("model_type")
    if config.has("audio_config") and family not in _HEARING:
        config.problem("audio_config", f"the audio tower of {family or 'this model'} is not known")
    found = TOWERS.get(family)
    if found is None:
        if config.has("vision_config"):
            known = ", ".join(sorted(TOWERS))
            config.problem("vision_config", f"the tower of {family or 'this model'} is not known", f"known: {known}")
        return ()
    vision = config.table("vision_config")
    kind = vision.text("model_type")
    if kind and family in _KINDS and kind != _KINDS[family]:
        vision.problem("model_type", f"{kind} is not known as a tower of {family}", f"known: {_KINDS[family]}")
    return found.read(config, vision.with_defaults(tower_defaults(found.defaults)), hidden)
