"""What a config.json says that no shape can be read from: refused by name, never guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rackserve.catalog.architectures.reader import read_config, read_config_file
from rackserve.domain.errors import InputError

CASES = json.loads(Path(__file__).with_name("architectures.json").read_text(encoding="utf-8"))
CONFIGS = {case["name"]: case["config"] for case in CASES}
LLAMA = CONFIGS["Meta-Llama-3.1-8B"]


def refused(config: dict[str, Any]) -> str:
    with pytest.raises(InputError) as raised:
        read_config(config, "config.json")
    return str(raised.value)


def test_an_unknown_architecture_is_named():
    message = refused({"architectures": ["FancyForCausalLM"], "model_type": "fancy"})
    assert "FancyForCausalLM" in message
    assert "known: " in message


def test_no_architecture_at_all():
    assert "model_type: is missing" in refused({})


def test_an_unknown_tower_is_named():
    message = refused({**LLAMA, "vision_config": {"hidden_size": 8}})
    assert "vision_config: the tower of llama is not known" in message


def test_another_tower_than_the_family_has():
    config = CONFIGS["gemma3-27b"]
    message = refused({**config, "vision_config": {**config["vision_config"], "model_type": "clip"}})
    assert "vision_config.model_type: clip is not known" in message


def test_an_unknown_tower_for_sound():
    assert "audio_config" in refused({**LLAMA, "audio_config": {"hidden_size": 8}})


def test_every_missing_key_is_named():
    message = refused({"architectures": ["LlamaForCausalLM"], "model_type": "llama"})
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"):
        assert f"{key}: is missing" in message


@pytest.mark.parametrize("wrong", ["many", True, 1.5, [1], {"a": 1}, -1, 10**30, float("nan"), float("inf")])
def test_a_wrong_number_of_layers(wrong):
    assert "num_hidden_layers" in refused({**LLAMA, "num_hidden_layers": wrong})


def test_a_number_with_more_digits_than_python_writes():
    assert "num_hidden_layers" in refused({**LLAMA, "num_hidden_layers": 10**5000})


@pytest.mark.parametrize("wrong", ["llama", 3, [1]])
def test_a_wrong_table(wrong):
    assert "rope_scaling: expected a table" in refused({**LLAMA, "rope_scaling": wrong})


def test_an_unknown_kind_of_rotary_embedding():
    assert "rope_type: spiral is not known" in refused({**LLAMA, "rope_scaling": {"rope_type": "spiral"}})


def test_an_unknown_kind_of_layer():
    kinds = ["full_attention"] * 31 + ["telepathy"]
    assert "telepathy is not known" in refused({**LLAMA, "layer_types": kinds})


def test_too_few_kinds_of_layers():
    assert "has 1 entries for 32 layers" in refused({**LLAMA, "layer_types": ["full_attention"]})


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("DeepSeek-V4-Flash", {"compress_ratios": [4, 5]}, "compress_ratios"),
        ("MiMo-V2-Flash", {"hybrid_layer_pattern": [1]}, "hybrid_layer_pattern: has 1 entries"),
        ("Nemotron-H-56B-Base-8K", {"hybrid_override_pattern": "M?"}, "hybrid_override_pattern: ? is not known"),
        ("granite-4-h-small", {"layer_types": ["mamba"]}, "layer_types"),
        ("kimi-linear-48b", {"linear_attn_config": {}}, "linear_attn_config.kda_layers"),
    ],
)
def test_layers_that_are_not_described(name, changes, expected):
    assert expected in refused({**CONFIGS[name], **changes})


def test_a_replaced_block_of_a_searched_model():
    block = {"attention": {"replace_with_linear": True}, "ffn": {"ffn_mult": 2.5}}
    config = {
        **LLAMA,
        "architectures": ["DeciLMForCausalLM"],
        "model_type": "nemotron-nas",
        "num_hidden_layers": 1,
        "block_configs": [block],
    }
    assert "block_configs[0].attention.replace_with_linear" in refused(config)


def test_a_file_that_is_no_json(tmp_path):
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="is not JSON"):
        read_config_file(tmp_path / "config.json")


def test_a_file_nested_too_deeply(tmp_path):
    (tmp_path / "config.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(InputError, match="is not JSON"):
        read_config_file(tmp_path / "config.json")


def test_a_file_that_is_no_table(tmp_path):
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="expected a JSON object"):
        read_config_file(tmp_path / "config.json")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_config_file(tmp_path / "config.json")


def test_a_class_that_nobody_listed_is_refused_though_its_type_is_known():
    config = LLAMA | {"architectures": ["LlamaButDifferentForCausalLM"]}
    with pytest.raises(InputError, match="LlamaButDifferentForCausalLM"):
        read_config(config, "test")


def test_a_class_of_another_family_than_the_type_is_refused():
    config = LLAMA | {"architectures": ["GptOssForCausalLM"]}
    with pytest.raises(InputError, match="GptOssForCausalLM"):
        read_config(config, "test")
