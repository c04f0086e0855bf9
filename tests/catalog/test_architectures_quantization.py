"""Number formats of the matrices of a quantized checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rackserve.catalog.architectures.reader import read_config
from rackserve.domain.errors import InputError
from rackserve.domain.weight_format import FORMATS

CASES = json.loads(Path(__file__).with_name("architectures.json").read_text(encoding="utf-8"))
CONFIGS = {case["name"]: case["config"] for case in CASES}
LLAMA, MIXTRAL, DEEPSEEK = CONFIGS["Meta-Llama-3.1-8B"], CONFIGS["Mixtral-8x7B-v0.1"], CONFIGS["DeepSeek-V3"]


def formats(config: dict[str, Any], quantization: dict[str, Any], layer: int = 0) -> dict[str, str]:
    shape = read_config({**config, "quantization_config": quantization}, "config.json")
    return {matrix.name: matrix.stored for matrix in shape.layers[layer].matrices if matrix.linear}


def compressed(weights: dict[str, Any], **more: Any) -> dict[str, Any]:
    group = {"weights": weights, "targets": ["Linear"]}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, **more}


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        ({"quant_method": "fp8"}, "fp8-tensor"),
        ({"quant_method": "fbgemm_fp8"}, "fp8-channel"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8-block"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "int4-g128"),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, "int4-channel"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": False}, "awq"),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "int8"),
        ({"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True}, "awq-g64"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8-tensor"),
        ({"quant_algo": "NVFP4"}, "nvfp4"),
        ({"quant_method": "mxfp4"}, ""),
        (compressed({"num_bits": 8, "type": "int", "strategy": "channel"}), "int8"),
        (compressed({"num_bits": 8, "type": "float", "strategy": "channel"}), "fp8-channel"),
        (compressed({"num_bits": 8, "type": "float", "strategy": "tensor"}), "fp8-tensor"),
        (compressed({"num_bits": 8, "type": "float", "strategy": "block"}), "fp8-block"),
        (compressed({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}), "int4-g32"),
        (compressed({"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}), "mxfp4"),
        (compressed({"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}), "nvfp4"),
    ],
)
def test_methods(quantization, expected):
    found = formats(LLAMA, quantization)
    assert set(found.values()) == {expected}
    assert expected == "" or expected in FORMATS


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"quant_method": "squeeze"}, "quant_method: squeeze is not known"),
        ({"quant_method": "gptq", "bits": 3, "group_size": 128}, "3 bits in groups of 128 are not known"),
        ({"quant_method": "modelopt", "quant_algo": "FP2"}, "quant_algo: FP2 is not known"),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, "quantized_layers: is missing or empty"),
        ({"quant_method": "compressed-tensors"}, "config_groups: is missing or empty"),
        ({"quant_method": "fp8", "weight_block_size": [64, 64]}, "only blocks of 128 x 128"),
        ({"quant_method": "fp8", "ignored_layers": ["re:(a+)+b"]}, "is not an expression that can be matched"),
        ({"quant_method": "fp8", "ignored_layers": ["re:["]}, "is not an expression that can be matched"),
        ({"quant_method": "fp8", "ignored_layers": [3]}, "expected a list of strings"),
        ("fp8", "quantization_config: expected a table"),
    ],
)
def test_refusals(quantization, message):
    with pytest.raises(InputError) as raised:
        read_config({**LLAMA, "quantization_config": quantization}, "config.json")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "pattern",
    [
        "model.layers.0.self_attn.q_proj",
        "model.language_model.layers.0.self_attn.q_proj",
        "model.layers.0.self_attn",
        "self_attn.q_proj",
        "q_proj",
        "model.layers.0.self_attn*",
        "*q_proj",
        "re:.*q_proj.*",
        r"re:.*self_attn\.(q|k)_proj$",
    ],
)
def test_lists_of_what_stays_unquantized(pattern):
    found = formats(LLAMA, {"quant_method": "fp8", "modules_to_not_convert": [pattern]})
    assert found["self_attn.q_proj"] == ""
    assert found["mlp.up_proj"] == "fp8-tensor"
    other = formats(LLAMA, {"quant_method": "fp8", "modules_to_not_convert": [pattern]}, layer=1)
    assert other["mlp.up_proj"] == "fp8-tensor"


def test_a_name_means_no_longer_name():
    found = formats(LLAMA, {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0.mlp.up", "lm_head"]})
    assert set(found.values()) == {"fp8-tensor"}


def test_experts_of_a_list_are_left_out_as_one():
    ignored = [f"model.layers.0.mlp.experts.{index}.up_proj" for index in range(8)]
    found = formats(MIXTRAL, {"quant_method": "fp8", "ignored_layers": ignored})
    assert (found["mlp.experts.w13"], found["self_attn.q_proj"]) == ("", "fp8-tensor")


def test_only_experts_of_gpt_oss_are_quantized():
    found = formats(MIXTRAL, {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})
    assert (found["mlp.experts.w13"], found["mlp.experts.w2"], found["self_attn.q_proj"]) == ("mxfp4", "mxfp4", "")


def test_blocks_of_experts_become_smaller_where_they_do_not_divide():
    found = formats(DEEPSEEK, DEEPSEEK["quantization_config"], layer=10)
    assert found["mlp.experts.w2"] == "fp8-block-experts"
    assert found["self_attn.o_proj"] == "fp8-block"
    # Eight GPUs hold 192 of 1536 columns: 64 x 64 numbers share a scale.
    assert FORMATS["fp8-block-experts"].matrix_bytes(4096, 192) == 4096 * 192 + 64 * 3 * 4


def test_formats_of_named_layers():
    named = {
        "model.layers.0.self_attn.q_proj": {"quant_algo": "FP8"},
        "model.layers.0.mlp.experts.0.up_proj": {"quant_algo": "NVFP4"},
        "lm_head": {"quant_algo": "NVFP4"},
    }
    quantization = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": named}
    found = formats(MIXTRAL, quantization)
    assert found["self_attn.q_proj"] == "fp8-tensor"
    assert found["mlp.experts.w13"] == "nvfp4"
    assert found["self_attn.k_proj"] == ""
    head = read_config({**MIXTRAL, "quantization_config": quantization}, "x").head
    assert head is not None
    assert head.stored == "nvfp4"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, "mxfp4"), ({"expert_dtype": "fp8"}, "fp8-block-ue8m0"), ({"model_type": "deepseek_ref"}, "fp8-block-ue8m0")],
)
def test_experts_of_deepseek_v4(changes, expected):
    config = {key: value for key, value in CONFIGS["DeepSeek-V4-Flash"].items() if key != "expert_dtype"} | changes
    found = formats(config, config["quantization_config"])
    assert found["ffn.experts.w13"] == expected
    assert found["attn.wq_b"] == "fp8-block-ue8m0"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"kv_cache_quant_algo": "FP8"}, "fp8"),
        ({"kv_cache_scheme": {"num_bits": 8, "type": "float"}}, "fp8"),
        ({"kv_cache_scheme": "FP8"}, "fp8"),
        ({"kv_cache_scheme": None}, ""),
        ({}, ""),
    ],
)
def test_the_cache_that_a_checkpoint_has_scales_for(more, expected):
    shape = read_config({**LLAMA, "quantization_config": {"quant_method": "fp8", **more}}, "x")
    assert shape.kv_cache_dtype == expected


def test_towers_that_a_list_names_stay_as_they_are():
    config = CONFIGS["qwen2.5-vl-7b"]
    named = {"quant_method": "fp8", "modules_to_not_convert": ["visual.blocks.0.attn.qkv"]}
    kept = read_config({**config, "quantization_config": named}, "x")
    assert {matrix.stored for matrix in kept.extras} == {""}
    reached = read_config({**config, "quantization_config": {"quant_method": "fp8"}}, "x")
    assert {matrix.stored for matrix in reached.extras if matrix.linear} == {"fp8-tensor"}


@pytest.mark.parametrize(
    ("name", "bytes_of_one"),
    [
        ("fp8", 8192 * 4096 + 4),
        ("fp8-tensor", 8192 * 4096 + 8),
        ("fp8-channel", 8192 * 4096 + 8192 * 4),
        ("fp8-block", 8192 * 4096 + 64 * 32 * 4),
        ("mxfp4", 8192 * 4096 // 2 + 8192 * 128),
        ("nvfp4", 8192 * 4096 // 2 + 8192 * 256 + 8),
        ("int4-g128", 8192 * 4096 // 2 + 8192 * 32 * 2),
        ("awq", 8192 * 4096 // 2 + 8192 * 32 * 5 // 2),
    ],
)
def test_bytes_of_a_format(name, bytes_of_one):
    assert FORMATS[name].matrix_bytes(8192, 4096) == bytes_of_one
