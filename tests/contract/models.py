"""Folders with the config.json that a model's repository would hold, made from the catalogue's facts.

The catalogue keeps what decides memory; the rest is what transformers' own configuration classes default to.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from rackserve.domain.model import LanguageModel

# The class that each type's repository names.
ARCHITECTURES = {
    "cohere": "CohereForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "deepseek_v4": "DeepseekV4ForCausalLM",
    "gemma3": "Gemma3ForConditionalGeneration",
    "gemma4": "Gemma4ForConditionalGeneration",
    "glm4_moe": "Glm4MoeForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "kimi_k2": "DeepseekV3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "llama4": "Llama4ForConditionalGeneration",
    "mistral": "MistralForCausalLM",
    "mistral3": "Mistral3ForConditionalGeneration",
    "mixtral": "MixtralForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_5": "Qwen3_5ForConditionalGeneration",
    "qwen3_5_moe": "Qwen3_5MoeForConditionalGeneration",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen3_next": "Qwen3NextForCausalLM",
}


def _packed(weights: dict[str, Any], inputs: dict[str, Any] | None, form: str) -> dict[str, Any]:
    """As llm-compressor writes it."""
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
    }


def _numbers(bits: int, kind: str, strategy: str, *, dynamic: bool = False, group: int | None = None) -> dict[str, Any]:
    numbers = {"num_bits": bits, "type": kind, "strategy": strategy, "symmetric": True, "dynamic": dynamic}
    return numbers if group is None else {**numbers, "group_size": group}


# What repositories in these formats hold, by the catalogue's name for the format.
QUANTIZATION: dict[str, dict[str, Any]] = {
    "fp8": _packed(_numbers(8, "float", "channel"), _numbers(8, "float", "token", dynamic=True), "float-quantized"),
    "fp8-block": {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
    },
    "int8": _packed(_numbers(8, "int", "channel"), _numbers(8, "int", "token", dynamic=True), "int-quantized"),
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
    "int4-g128": _packed(_numbers(4, "int", "group", group=128), None, "pack-quantized"),
    "int4-g32": _packed(_numbers(4, "int", "group", group=32), None, "pack-quantized"),
    "mxfp4": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
    "nvfp4": {
        "quant_method": "modelopt",
        "quant_algo": "NVFP4",
        "quantization": {
            "quant_algo": "NVFP4",
            "kv_cache_quant_algo": None,
            "group_size": 16,
            "exclude_modules": ["lm_head"],
        },
    },
}
# The bases of Gemma 4's rotary embeddings, which transformers has no defaults for and which take no memory.
GEMMA_4_THETA = {"full_attention": 1000000.0, "sliding_attention": 10000.0}


def model_folder(model: LanguageModel, weight_format: str, target: Path) -> Path:
    """Write the config.json of the model's checkpoint in this format (`none`: unquantized) into `target`, return it."""
    config = copy.deepcopy(model.config)
    config["architectures"] = [ARCHITECTURES[config["model_type"]]]
    config.setdefault("dtype", "bfloat16")
    if config["model_type"] == "gemma4":
        for kind, parameters in config["text_config"]["rope_parameters"].items():
            parameters["rope_theta"] = GEMMA_4_THETA[kind]
    if "quantization_config" in config:
        # A model that comes quantized: there is one format, whatever it is called.
        weight_format = model.checkpoints[0].quantization
    if weight_format != "none":
        config["quantization_config"] = QUANTIZATION[weight_format] | config.get("quantization_config", {})
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(config))
    return target
