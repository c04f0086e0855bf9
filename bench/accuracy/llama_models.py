"""The models that the llama.cpp oracle measures, and the shapes of those whose config.json is not at hand.

A string names a file in the `model_configs` folder of the aiconfigurator-core package; a mapping is the config itself,
down to what `gguf_shapes` reads.
"""

from __future__ import annotations

from typing import Any

_COHERE = {
    "architectures": ["CohereForCausalLM"],
    "hidden_size": 8192,
    "intermediate_size": 22_528,
    "num_hidden_layers": 40,
    "num_attention_heads": 64,
    "vocab_size": 256_000,
}
_GEMMA3 = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "sliding_window": 1024,
    "sliding_window_pattern": 6,
    "vocab_size": 262_208,
}

MODELS: dict[str, str | dict[str, Any]] = {
    "Llama 3.1 8B": "meta-llama--Meta-Llama-3.1-8B",
    # The shape of Llama 3.3 70B too.
    "Llama 3.1 70B": "meta-llama--Meta-Llama-3.1-70B",
    "Llama 3.1 405B": "meta-llama--Meta-Llama-3.1-405B",
    "Llama 3.2 1B": {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "tie_word_embeddings": True,
        "rope_scaling": {"rope_type": "llama3"},
    },
    "Mistral Small 24B": {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 5120,
        "intermediate_size": 32_768,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 131_072,
    },
    "Mixtral 8x7B": "mistralai--Mixtral-8x7B-v0.1",
    "Qwen2.5 7B": {
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152_064,
    },
    "Qwen2.5 32B": {
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 5120,
        "intermediate_size": 27_648,
        "num_hidden_layers": 64,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "vocab_size": 152_064,
    },
    "Qwen2.5 72B": {
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 8192,
        "intermediate_size": 29_568,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 152_064,
    },
    "Qwen3 0.6B": "Qwen--Qwen3-0.6B",
    "Qwen3 8B": "Qwen--Qwen3-8B",
    "Qwen3 32B": "Qwen--Qwen3-32B",
    "Qwen3 30B A3B": "Qwen--Qwen3-30B-A3B",
    "Qwen3 235B A22B": "Qwen--Qwen3-235B-A22B",
    "Qwen3.5 27B": "Qwen--Qwen3.5-27B",
    "Qwen3.5 35B A3B": "Qwen--Qwen3.5-35B-A3B",
    "Gemma 3 4B": {
        **_GEMMA3,
        "hidden_size": 2560,
        "intermediate_size": 10_240,
        "num_hidden_layers": 34,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
    },
    "Gemma 3 27B": {
        **_GEMMA3,
        "hidden_size": 5376,
        "intermediate_size": 21_504,
        "num_hidden_layers": 62,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "head_dim": 128,
    },
    "Gemma 4 26B A4B": "google--gemma-4-26B-A4B",
    "Gemma 4 31B": "nvidia--Gemma-4-31B-IT-NVFP4",
    "gpt-oss 20B": "openai--gpt-oss-20b",
    "gpt-oss 120B": "openai--gpt-oss-120b",
    "DeepSeek V2 Lite": {
        "architectures": ["DeepseekV2ForCausalLM"],
        "hidden_size": 2048,
        "intermediate_size": 10_944,
        "moe_intermediate_size": 1408,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "first_k_dense_replace": 1,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "num_experts_per_tok": 6,
        "routed_scaling_factor": 1.0,
        "vocab_size": 102_400,
    },
    "DeepSeek V3": "deepseek-ai--DeepSeek-V3",
    "Kimi K2": "moonshotai--Kimi-K2-Instruct",
    "Command R 35B": {**_COHERE, "num_key_value_heads": 64},
    "Command R 08-2024": {**_COHERE, "num_key_value_heads": 8, "intermediate_size": 24_576},
    "Command R7B": {
        "architectures": ["Cohere2ForCausalLM"],
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 256_000,
        "sliding_window": 4096,
        "sliding_window_pattern": 4,
    },
}

# The quantization that a model is mostly served in: this one gets the whole grid of cases.
MAIN_QUANTIZATION = "Q4_K_M"
# gpt-oss is only published with its own four-bit experts.
ONLY_MXFP4 = frozenset({"gpt-oss 20B", "gpt-oss 120B"})
OTHER_QUANTIZATIONS = ("Q5_K_M", "Q6_K", "Q8_0", "F16")
