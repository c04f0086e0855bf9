"""Shapes read from config.json files, held to what vLLM 0.32.0 itself allocates for the same files.

`architectures.json` has one model per line: its config.json without keys that say nothing of memory, its parameters,
and the bytes of the parameters of vLLM's model class on one rank of 1 and of 2 tensor-parallel GPUs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rackserve.catalog.architectures.reader import read_config, read_config_file
from rackserve.domain.shape import AttentionCache, CompressedCache, LatentCache, StateCache
from rackserve.planning.weights import weights

CASES = json.loads(Path(__file__).with_name("architectures.json").read_text(encoding="utf-8"))
BY_NAME = {case["name"]: case for case in CASES}
LLAMA = BY_NAME["Meta-Llama-3.1-8B"]["config"]
# vLLM rounds nothing of these away; what is left are single scales of quantized experts and one bias of a head.
TOLERANCE = 1e-6


def shape_of(name: str, **changes: Any):
    return read_config({**BY_NAME[name]["config"], **changes}, name)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_parameters_and_bytes(case):
    shape = read_config(case["config"], "config.json")
    assert shape.parameters == case["parameters"]
    assert shape.active_parameters == case["active"]
    for tensor_parallel, expected in case["bytes"].items():
        ours = max(weights(shape, "", int(tensor_parallel)).stages)
        assert ours == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Meta-Llama-3.1-8B", 8.030261248),
        ("Mixtral-8x7B-v0.1", 46.7),
        ("DeepSeek-V3", 671.0),
        ("Qwen3-8B", 8.19),
        ("gemma3-27b", 27.43),
        ("Kimi-K2-Instruct", 1026.4),
    ],
)
def test_parameters_are_the_published_ones(name, billions):
    assert shape_of(name).parameters / 1e9 == pytest.approx(billions, rel=1e-3)


def caches(name: str):
    return [layer.caches for layer in shape_of(name).layers]


def test_windows_and_full_attention_take_turns_in_gemma3():
    kept = [cache.window for (cache,) in caches("gemma3-27b")]
    assert kept[:6] == [1024] * 5 + [None]
    assert len(kept) == 62


def test_latent_layers_keep_one_latent():
    assert caches("DeepSeek-V3")[0] == (LatentCache(length=576, rope=64),)


def test_sparse_latent_layers_keep_keys_of_the_indexer():
    assert caches("DeepSeek-V3.2")[0] == (LatentCache(length=576, rope=64, indexer=132, sparse=True),)


def test_layers_of_glm_that_use_the_choice_of_another_have_no_indexer():
    shape = shape_of("GLM-5", index_topk_freq=4, index_skip_topk_offset=3)
    indexed = [bool(cache.indexer) for layer in shape.layers for cache in layer.caches]
    assert indexed[:8] == [True, True, True, False, False, False, True, False]
    assert sum(indexed) == 21


def test_state_of_a_delta_network():
    first, *_, last = caches("Qwen3.5-35B-A3B")
    assert first == (StateCache(conv=3 * 8192, ssm=32 * 128 * 128, ssm_bytes=4, kind="gdn"),)
    assert last == (AttentionCache(2, 256, 256),)


def test_state_of_mamba():
    assert caches("Nemotron-H-56B-Base-8K")[0] == (StateCache(3 * 20480, 256 * 64 * 256, 4, "mamba2"),)


@pytest.mark.parametrize(("name", "size"), [("granite-4-h-small", 2), ("qwen3-next", 2), ("Qwen3.5-35B-A3B", 4)])
def test_precision_of_the_state(name, size):
    (first,) = caches(name)[0]
    assert first.ssm_bytes == size


def test_state_of_kimi_delta_attention():
    assert caches("Kimi-K3")[0] == (StateCache(3 * 36864, 96 * 128 * 128, 4, "kda"),)


def test_values_narrower_than_keys():
    full, windowed, *_ = caches("MiMo-V2-Flash")
    assert full == (AttentionCache(4, 192, 128),)
    assert windowed == (AttentionCache(8, 192, 128, 128),)


def test_pools_of_deepseek_v4():
    kept = caches("DeepSeek-V4-Flash")
    window = CompressedCache("window", 584, 1, 64, 128)
    assert kept[0] == (window,)
    assert [cache.page_bytes for cache in kept[2]] == [37440, 37440, 32832, 8640, 8640]
    assert [cache.page_bytes for cache in kept[3]] == [37440, 1728, 32832]
    assert [cache.window for cache in kept[2]] == [128, None, 8, None, 8]


def test_layers_that_share_keys_keep_none():
    kept = caches("gemma4-e2b")
    assert [bool(entry) for entry in kept] == [True] * 15 + [False] * 20


@pytest.mark.parametrize(
    ("name", "mebibytes"),
    [
        ("Meta-Llama-3.1-8B", 32),
        ("Llama-4-Scout-17B-16E-Instruct", 2560),
        ("DeepSeek-V3", 20),
        ("DeepSeek-V3.2", 40),
        ("DeepSeek-V4-Flash", 512),
        ("GLM-5", 24.75),
        ("gemma3-27b", 288),
        ("gemma-4-26B-A4B", 384),
        ("MiniMax-M2.5", 24),
        ("MiMo-V2-Flash", 64),
        ("Qwen3.5-35B-A3B", 32),
        ("qwen2.5-vl-7b", 125),
        ("phi-3-mini-128k", 24.75),
        ("glm-4-32b", 4),
        ("command-r", 32),
        ("Nemotron-H-56B-Base-8K", 0),
        ("smollm3-3b", 0),
    ],
)
def test_rotary_tables(name, mebibytes):
    assert shape_of(name).buffers_bytes == mebibytes * 2**20


def test_yarn_lengthens_the_table():
    scaled = shape_of("qwen2.5-7b", rope_scaling={"type": "yarn", "factor": 4.0})
    assert scaled.buffers_bytes == 4 * shape_of("qwen2.5-7b").buffers_bytes


def test_text_only_checkpoints_have_no_tower():
    assert shape_of("Qwen3-8B").extras == ()


def test_a_tower_may_be_left_to_its_defaults():
    config = {key: value for key, value in BY_NAME["gemma3-27b"]["config"].items() if key != "vision_config"}
    extras = sum(matrix.elements for matrix in read_config(config, "x").extras)
    assert 89e6 < extras < 91e6


def test_a_tower_stays_whole_where_its_heads_cannot_be_divided():
    shape = shape_of("Kimi-K3")
    (first, *_) = shape.extras
    assert first.shard(4) == (first.rows // 4, first.columns)
    assert first.shard(8) == (first.rows, first.columns)


def test_blocks_of_a_searched_model():
    whole = {"attention": {"n_heads_in_group": 8}, "ffn": {"ffn_mult": 2.625}}
    none = {"attention": {"no_op": True}, "ffn": {"no_op": True}}
    config = {
        **LLAMA,
        "architectures": ["DeciLMForCausalLM"],
        "model_type": "nemotron-nas",
        "num_hidden_layers": 2,
        "block_configs": [whole, none],
    }
    shape = read_config(config, "x")
    assert shape.layers[1].matrices == ()
    assert shape.layers[0].caches == (AttentionCache(4, 128, 128),)
    assert max(matrix.rows for matrix in shape.layers[0].matrices) == 7168


def test_quantization_beside_the_file(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    beside = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(beside), encoding="utf-8")
    shape = read_config_file(tmp_path / "config.json")
    assert shape.quantization == "modelopt fp8-tensor"
    assert shape.kv_cache_dtype == "fp8"


def test_a_class_alone_is_enough():
    config = {key: value for key, value in LLAMA.items() if key != "model_type"}
    assert read_config(config, "test").model_type == "llama"
