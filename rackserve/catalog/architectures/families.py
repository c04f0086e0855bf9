"""Families that differ from Llama in their traits only, by the `model_type` of their text model."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from rackserve.catalog.architectures.decoder import Traits, gemma2_kinds, pattern_key

_QWEN2 = Traits(qkv_bias=True, output_bias=False)
_GEMMA3 = Traits(tied=True, norms=4, qk_norm="head", kinds=pattern_key("sliding_window_pattern", 6))
_QWEN3_MOE = Traits(moe=True, qk_norm="head", router_linear=True)
_COHERE = Traits(tied=True, norms=1, qk_norm="full")

FAMILIES: Mapping[str, Traits] = MappingProxyType(
    {
        "arcee": Traits(gated=False),
        "cohere": _COHERE,
        "cohere2": Traits(tied=True, norms=1, kinds=pattern_key("sliding_window_pattern", 4)),
        "deepseek": Traits(moe=True, correction=False),
        "ernie4_5": Traits(tied=True),
        "ernie4_5_moe": Traits(tied=True, moe=True, router_fp32=True, correction=True),
        "exaone4": Traits(qk_norm="head"),
        "gemma": Traits(tied=True),
        "gemma2": Traits(tied=True, norms=4, kinds=gemma2_kinds),
        "gemma3_text": _GEMMA3,
        "glm": Traits(output_bias=False),
        "glm4": Traits(norms=4, output_bias=False),
        "glm4_moe": Traits(moe=True, output_bias=False, router_fp32=True, correction=True),
        "gpt_oss": Traits(
            moe=True,
            qkv_bias=True,
            output_bias=True,
            sinks=True,
            expert_bias=True,
            router_bias=True,
            kinds=gemma2_kinds,
        ),
        "granite": Traits(),
        "granitemoe": Traits(tied=True, moe=True),
        "granitemoeshared": Traits(tied=True, moe=True),
        "hunyuan_v1_dense": Traits(tied=True, qk_norm="head"),
        "internlm2": Traits(),
        "llama": Traits(),
        "mimo": _QWEN2,
        "minimax_m2": Traits(moe=True, qk_norm="full", router_fp32=True),
        "ministral3": Traits(),
        "mistral": Traits(),
        "mixtral": Traits(moe=True),
        "nemotron": Traits(norm_bias=True, gated=False),
        "olmo2": Traits(qk_norm="whole"),
        "olmo3": Traits(qk_norm="whole"),
        "olmoe": Traits(moe=True, qk_norm="whole"),
        "phi3": Traits(qkv_bias=False, output_bias=False),
        "phimoe": Traits(moe=True, norm_bias=True, head_bias=True),
        "qwen2": _QWEN2,
        "qwen2_5_vl_text": _QWEN2,
        "qwen2_moe": Traits(moe=True, qkv_bias=True, output_bias=False),
        "qwen2_vl_text": _QWEN2,
        "qwen3": Traits(qk_norm="head"),
        "qwen3_moe": _QWEN3_MOE,
        "qwen3_vl_moe_text": _QWEN3_MOE,
        "qwen3_vl_text": Traits(qk_norm="head"),
        "seed_oss": Traits(),
        "smollm3": Traits(tied=True),
        "starcoder2": Traits(tied=True, norm_bias=True, gated=False),
    }
)
