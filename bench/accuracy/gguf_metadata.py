"""The metadata keys of a GGUF file, from a Hugging Face config.json, as llama.cpp's converter writes them.

Keys stand without the architecture that GGUF puts in front of them. Only keys that llama.cpp needs to load a model,
or that decide how much memory it takes, are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]
Value = int | float | bool | list[int] | list[bool]
Metadata = dict[str, Value]

CONTEXT_LENGTH = 131_072
EPSILON = 1e-6


def is_windowed(config: Config, layer: int) -> bool:
    """Whether a layer of a model with a sliding window uses it."""
    if "layer_types" in config:
        return bool(config["layer_types"][layer] == "sliding_attention")
    pattern = int(config["sliding_window_pattern"])
    return layer % pattern < pattern - 1


def head_length(config: Config) -> int:
    """Elements of one head, where all have the same length."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def expert_count(config: Config) -> int:
    """Routed experts of one layer; 0 for a dense model."""
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    return next((config[name] for name in names if config.get(name)), 0)


def common_metadata(config: Config) -> Metadata:
    """The keys that every architecture has."""
    length = head_length(config)
    metadata: Metadata = {
        "block_count": config["num_hidden_layers"],
        "context_length": CONTEXT_LENGTH,
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config.get("intermediate_size") or config.get("moe_intermediate_size", 0),
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": length,
        "attention.value_length": length,
        "rope.dimension_count": length,
        "attention.layer_norm_rms_epsilon": EPSILON,
        "attention.layer_norm_epsilon": EPSILON,
        "vocab_size": config["vocab_size"],
    }
    if count := expert_count(config):
        metadata["expert_count"] = count
        metadata["expert_used_count"] = config.get("num_experts_per_tok") or config["top_k_experts"]
    return metadata


def no_metadata(_: Config) -> Metadata:
    """Nothing beyond the common keys."""
    return {}


def moe_metadata(config: Config) -> Metadata:
    """What all mixtures of experts have beyond the common keys."""
    return {"expert_feed_forward_length": config.get("moe_intermediate_size") or config["intermediate_size"]}


def window_metadata(config: Config) -> Metadata:
    """The sliding window, and the layers that use it."""
    pattern = [is_windowed(config, layer) for layer in range(config["num_hidden_layers"])]
    return {"attention.sliding_window": config["sliding_window"], "attention.sliding_window_pattern": pattern}


def cohere_metadata(config: Config) -> Metadata:
    """Command R has a logit scale, and from version 2 on a sliding window."""
    return {"logit_scale": 0.0625} | (window_metadata(config) if config.get("sliding_window") else {})


def gpt_oss_metadata(config: Config) -> Metadata:
    """The sliding window, without the layers that use it."""
    # The converter writes no pattern here: llama.cpp has it built in.
    return moe_metadata(config) | {"attention.sliding_window": config["sliding_window"]}


def gemma4_metadata(config: Config) -> Metadata:
    """Full and windowed layers differ in heads and in their lengths."""
    full, windowed = config["global_head_dim"], config["head_dim"]
    layers = range(config["num_hidden_layers"])
    heads = {True: config["num_key_value_heads"], False: config["num_global_key_value_heads"]}
    metadata: Metadata = {
        "embedding_length_per_layer_input": config["hidden_size_per_layer_input"],
        "attention.shared_kv_layers": config["num_kv_shared_layers"],
        "attention.key_length": full,
        "attention.value_length": full,
        "rope.dimension_count": full,
        "attention.key_length_swa": windowed,
        "attention.value_length_swa": windowed,
        "rope.dimension_count_swa": windowed,
        "attention.head_count_kv": [heads[is_windowed(config, layer)] for layer in layers],
        "final_logit_softcapping": config["final_logit_softcapping"],
    }
    return metadata | window_metadata(config) | (moe_metadata(config) if expert_count(config) else {})


def deepseek2_metadata(config: Config) -> Metadata:
    """Latent attention: one compressed key stands for all heads."""
    rank, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
    metadata: Metadata = {
        # Latent attention is stored as attention with one shared key/value head.
        "attention.head_count_kv": 1,
        "attention.key_length": rank + rope,
        "attention.value_length": rank,
        "attention.key_length_mla": config["qk_nope_head_dim"] + rope,
        "attention.value_length_mla": config["v_head_dim"],
        "attention.kv_lora_rank": rank,
        "rope.dimension_count": rope,
        "leading_dense_block_count": config["first_k_dense_replace"],
        "expert_shared_count": config["n_shared_experts"],
        "expert_weights_scale": float(config["routed_scaling_factor"]),
        "expert_gating_func": 2,
    }
    if config.get("q_lora_rank"):
        metadata["attention.q_lora_rank"] = config["q_lora_rank"]
    return metadata | moe_metadata(config)


def qwen35_metadata(config: Config) -> Metadata:
    """Most layers are gated delta nets, which ssm keys describe."""
    metadata: Metadata = {
        "rope.dimension_count": head_length(config) // 4,
        "rope.dimension_sections": [11, 11, 10, 0],
        "full_attention_interval": config.get("full_attention_interval", 4),
        "ssm.conv_kernel": config["linear_conv_kernel_dim"],
        "ssm.state_size": config["linear_key_head_dim"],
        "ssm.group_count": config["linear_num_key_heads"],
        "ssm.time_step_rank": config["linear_num_value_heads"],
        "ssm.inner_size": config["linear_num_value_heads"] * config["linear_value_head_dim"],
    }
    if expert_count(config):
        metadata |= moe_metadata(config)
        metadata["expert_shared_feed_forward_length"] = config["shared_expert_intermediate_size"]
    return metadata
