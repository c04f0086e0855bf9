"""Towers of Gemma 3 (SigLIP, vLLM's siglip.py) and Gemma 4 (image and sound, taken from transformers as they are)."""

from __future__ import annotations

from rackserve.catalog.architectures.config import Config
from rackserve.catalog.architectures.defaults import tower_defaults
from rackserve.catalog.architectures.towers import Encoder, loose, norm
from rackserve.domain.shape import Matrix

# siglip.py and gemma4_mm.py quantize a tower only where its widths are multiples of this.
_QUANTIZABLE = 64


def gemma3_tower(_: Config, vision: Config, hidden: int) -> tuple[Matrix, ...]:
    """SigLIP, and a projection to the language model that is never split nor quantized."""
    width, intermediate = vision.integer("hidden_size"), vision.integer("intermediate_size")
    patch, image = vision.integer("patch_size"), vision.integer("image_size")
    divisible = width % _QUANTIZABLE == 0 and intermediate % _QUANTIZABLE == 0
    encoder = Encoder(
        "vision_tower.vision_model.encoder.layers",
        vision.integer("num_hidden_layers", most=4096),
        width,
        intermediate,
        quantizable=(True, divisible),
    )
    return (
        *encoder.matrices(),
        loose("vision_tower.patch_embedding", width, vision.integer("num_channels") * patch**2, bias=True),
        loose("vision_tower.position_embedding", (image // patch) ** 2, width),
        norm("vision_tower.post_layernorm", width, bias=True),
        loose("multi_modal_projector.mm_input_projection_weight", width, hidden),
        norm("multi_modal_projector.mm_soft_emb_norm", width, bias=False),
    )


def gemma4_tower(config: Config, vision: Config, hidden: int) -> tuple[Matrix, ...]:
    """The image tower, and the one for sound where the checkpoint has it. Tensor parallelism splits neither."""
    width, intermediate = vision.integer("hidden_size"), vision.integer("intermediate_size")
    layers = vision.integer("num_hidden_layers", most=4096)
    heads = vision.integer("num_attention_heads", most=4096)
    head_dim = vision.integer("head_dim", default=max(1, width // heads))
    linear = width % _QUANTIZABLE == 0 and intermediate % _QUANTIZABLE == 0
    encoder = Encoder(
        "vision_tower.encoder.layers",
        layers,
        width,
        intermediate,
        gated=True,
        bias=False,
        norms=4,
        norm_bias=False,
        split=False,
        quantizable=(linear, linear),
        inner=heads * head_dim,
    )
    sound = config.table("audio_config").with_defaults(tower_defaults("gemma4_audio"))
    return (
        *encoder.matrices(),
        norm("vision_tower.qk_norm", 2 * head_dim, bias=False, count=layers),
        loose("vision_tower.position_embedding_table", 2 * vision.integer("position_embedding_size"), width),
        Matrix("vision_tower.input_proj", width, 3 * vision.integer("patch_size") ** 2, linear=linear),
        Matrix("embed_vision.embedding_projection", hidden, width, linear=linear),
        *(_sound(sound, hidden, linear=linear) if config.has("audio_config") else ()),
    )


def _sound(sound: Config, hidden: int, *, linear: bool) -> tuple[Matrix, ...]:
    """A conformer: two feed-forward blocks, attention with relative positions and a convolution in each layer."""
    width, layers = sound.integer("hidden_size"), sound.integer("num_hidden_layers", most=4096)
    heads, out = sound.integer("num_attention_heads", most=4096), sound.integer("output_proj_dims")
    first, second = sound.pair("subsampling_conv_channels")
    prefix = "audio_tower.layers"
    # 128 mel bands, halved by each of the two convolutions.
    bands = 32

    def each(name: str, rows: int, columns: int) -> Matrix:
        return Matrix(f"{prefix}.{name}", rows, columns, count=layers, linear=linear)

    return (
        each("feed_forward.ffw_layer_1", 2 * 4 * width, width),
        each("feed_forward.ffw_layer_2", 2 * width, 4 * width),
        each("self_attn.qkv_proj", 3 * width, width),
        each("self_attn.post", width, width),
        each("self_attn.relative_k_proj", width, width),
        each("lconv1d.linear_start", 2 * width, width),
        each("lconv1d.linear_end", width, width),
        Matrix(f"{prefix}.depthwise_conv1d", width, sound.integer("conv_kernel_size"), count=layers, linear=False),
        norm(f"{prefix}.norm", 9 * width + width // heads, bias=False, count=layers),
        loose("audio_tower.subsample_conv_projection.layer0", first, 9),
        loose("audio_tower.subsample_conv_projection.layer1", second, first * 9),
        norm("audio_tower.subsample_conv_projection.norm", first + second, bias=False),
        Matrix("audio_tower.input_proj_linear", width, second * bands, linear=linear),
        Matrix("audio_tower.output_proj", out, width, linear=linear, bias=True),
        Matrix("embed_audio.embedding_projection", hidden, out, linear=linear),
    )
