"""From a config.json to a Shape. An architecture that is not listed is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rackserve.catalog.architectures.config import Config
from rackserve.catalog.architectures.decoder import EXPERT_COUNTS, Traits, decoder_layers
from rackserve.catalog.architectures.deepseek_v4 import deepseek_v4_final, deepseek_v4_layers
from rackserve.catalog.architectures.defaults import families_of_class, text_defaults
from rackserve.catalog.architectures.families import FAMILIES
from rackserve.catalog.architectures.gemma import gemma4_layers, per_layer_inputs
from rackserve.catalog.architectures.hybrid import delta_layers
from rackserve.catalog.architectures.kimi import kimi_final, kimi_layers
from rackserve.catalog.architectures.latent import latent_layers
from rackserve.catalog.architectures.llama4 import llama4_layers
from rackserve.catalog.architectures.mamba import granite_hybrid_layers, nemotron_h_layers
from rackserve.catalog.architectures.mimo import mimo_layers
from rackserve.catalog.architectures.minimax import minimax_m3_layers
from rackserve.catalog.architectures.nas import nas_layers
from rackserve.catalog.architectures.parts import norms
from rackserve.catalog.architectures.quantization import read_quantization, with_formats
from rackserve.catalog.architectures.rope import rope_tables
from rackserve.catalog.architectures.vision import tower
from rackserve.domain.errors import InputError, Problem
from rackserve.domain.shape import Layer, Matrix, Shape

Reader = Callable[[Config, Traits], list[Layer]]

_LATENT = Traits(moe=True)
_DELTA = Traits(moe=True, qk_norm="head", gate=True, tied=False)
# By `model_type` of the text model; `architectures` decides where that is a name nobody shares.
READERS: Mapping[str, tuple[Reader, Traits]] = {
    **{name: (decoder_layers, traits) for name, traits in FAMILIES.items()},
    "deepseek_v2": (latent_layers, _LATENT),
    "deepseek_v3": (latent_layers, _LATENT),
    "kimi_k2": (latent_layers, _LATENT),
    "deepseek_v32": (latent_layers, _LATENT),
    "glm4_moe_lite": (latent_layers, Traits(moe=True, router_fp32=True)),
    "glm_moe_dsa": (latent_layers, _LATENT),
    "qwen3_next": (delta_layers, _DELTA),
    "qwen3_5_text": (delta_layers, _DELTA),
    "qwen3_5_moe_text": (delta_layers, _DELTA),
    "gemma4_text": (gemma4_layers, Traits(tied=True)),
    "llama4_text": (llama4_layers, Traits()),
    "nemotron_h": (nemotron_h_layers, Traits()),
    "granitemoehybrid": (granite_hybrid_layers, Traits(tied=True)),
    "nemotron-nas": (nas_layers, Traits()),
    "mimo_v2_flash": (mimo_layers, Traits(moe=True, router_fp32=True, correction=True)),
    "minimax_m3": (minimax_m3_layers, Traits(router_fp32=True)),
    "deepseek_v4": (deepseek_v4_layers, Traits()),
    "kimi_linear": (kimi_layers, Traits()),
}
# Multimodal checkpoints whose text table names no type of its own.
TEXT_TYPES = {
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "llama4": "llama4_text",
    "qwen2_vl": "qwen2_vl_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "mistral3": "mistral",
    "minimax_m3_vl": "minimax_m3",
    # The name that DeepSeek's own inference code gives to V4.
    "deepseek_ref": "deepseek_v4",
}
# Names that families gave to the number of experts that a token passes through.
CHOSEN = ("num_experts_per_tok", "top_k_experts", "experts_per_token", "num_experts_per_token", "moe_k")
# Families whose vLLM class makes embedding and head on every pipeline stage, and not on those only that use them
# (Qwen 3.5 the embedding alone).
EMBEDDED_EVERYWHERE = frozenset(
    {
        "cohere",
        "cohere2",
        "gemma",
        "gemma2",
        "gemma3_text",
        "gemma4_text",
        "gpt_oss",
        "granitemoe",
        "granitemoehybrid",
        "granitemoeshared",
        "mixtral",
        "nemotron_h",
        "olmoe",
        "phimoe",
        "qwen2_moe",
        "qwen3_5_moe_text",
        "qwen3_5_text",
        "qwen3_moe",
        "qwen3_next",
        "qwen3_vl_moe_text",
    }
)


def read_config(values: Mapping[str, Any], where: str) -> Shape:
    """The shape that a config.json describes.

    Raises InputError that lists everything wrong with it, or names an architecture that rackserve does not know.
    """
    config = Config(values, where)
    name = next(iter(config.texts("architectures")), "")
    text = config.table("text_config") if config.has("text_config") else config
    family = _family(config, text, name)
    if family is None:
        raise InputError(config.problems)
    reader, traits = READERS[family]
    text = text.with_defaults(text_defaults(family))
    layers = reader(text, traits)
    shape = _shape(config, text, name or family, family, layers)
    stored = read_quantization(config, text)
    if config.problems:
        raise InputError(list(dict.fromkeys(config.problems)))
    return with_formats(shape, stored)


def read_config_file(path: Path) -> Shape:
    """As read_config, from a file; `hf_quant_config.json` beside it is read too. Raises InputError."""
    values = _json(path)
    beside = path.with_name(path.name.replace("config.json", "hf_quant_config.json"))
    if beside != path and beside.is_file() and "quantization_config" not in values:
        quantization = _json(beside).get("quantization")
        if isinstance(quantization, dict):
            values = {**values, "quantization_config": {"quant_method": "modelopt", **quantization}}
    return read_config(values, str(path))


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError([Problem(f"cannot be read: {error}", where=str(path))]) from error
    except (ValueError, RecursionError) as error:
        raise InputError([Problem(f"is not JSON: {error}", where=str(path))]) from error
    if not isinstance(values, dict):
        raise InputError([Problem("expected a JSON object", where=str(path))])
    return values


def _family(config: Config, text: Config, name: str) -> str | None:
    """The key of READERS, or None with a problem noted."""
    inner, outer = text.text("model_type"), config.text("model_type")
    # A text model that names its own type is read as that or not at all.
    named = inner if inner and inner != outer else TEXT_TYPES.get(outer, outer)
    behind = families_of_class(name)
    if not named and behind:
        return behind[0]
    if named in READERS and (not name or named in behind):
        return named
    known = ", ".join(sorted(READERS))
    label = name or inner or outer
    if not label:
        config.problem("model_type", "is missing", hint=f"known: {known}")
    else:
        key = "architectures" if name else "model_type"
        config.problem(key, f"{label} (model_type {inner or outer or 'none'}) is not known", hint=f"known: {known}")
    return None


def _shape(config: Config, text: Config, name: str, family: str, layers: list[Layer]) -> Shape:
    traits = READERS[family][1]
    hidden, vocab = text.integer("hidden_size"), text.integer("vocab_size")
    heads = text.integer("num_attention_heads")
    # vLLM lets the outer table decide where both speak (config/vllm.py).
    tied = config.flag("tie_word_embeddings", default=text.flag("tie_word_embeddings", default=traits.tied))
    dtype = text.text("torch_dtype") or text.text("dtype") or config.text("torch_dtype") or config.text("dtype")
    item = 4 if dtype == "float32" else 2
    embedding = Matrix("embed_tokens", vocab, hidden, "column", linear=False)
    moe_width = text.integer("moe_intermediate_size", default=text.integer("intermediate_size", default=1))
    count = text.optional(*EXPERT_COUNTS) or 0
    return Shape(
        architecture=name,
        model_type=family,
        # Cohere states a working maximum beside a larger or smaller nominal one; vLLM reads it first too.
        context_length=text.integer("model_max_length", "max_position_embeddings", default=2048),
        hidden=hidden,
        vocab=vocab,
        heads=heads,
        intermediate=text.integer("intermediate_size", default=moe_width),
        layers=tuple(layers),
        embedding=embedding,
        head=None if tied else Matrix("lm_head", vocab, hidden, "column", linear=False, bias=traits.head_bias),
        final=(*norms(hidden, 1, bias=traits.norm_bias), *_final(text, family)),
        extras=(*tower(config, hidden), *per_layer_inputs(text)),
        buffers_bytes=rope_tables(text, family, item),
        dtype_bytes=item,
        experts=count,
        experts_per_token=text.integer(*CHOSEN, default=1),
        divisors=(("num_attention_heads", heads),),
        embedded_everywhere=family in EMBEDDED_EVERYWHERE,
    )


def _final(text: Config, family: str) -> tuple[Matrix, ...]:
    """What a family has between its last layer and its head besides the norm."""
    if family == "deepseek_v4":
        return deepseek_v4_final(text)
    return kimi_final(text) if family == "kimi_linear" else ()
