"""`rackserve size` as a program: the keys of its JSON, exit codes, and input that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from rackserve.cli.main import cli
from rackserve.domain.errors import InputError
from rackserve.lab.tiny_model import write_tiny_gguf
from tests.examples import examples
from tests.planning.sizing import LLAMA_8B

JSON_KEYS = {
    "fits",
    "weights_gib_per_gpu",
    "kv_bytes_per_token_per_gpu",
    "kv_cache_gib_per_gpu",
    "kv_cache_tokens",
    "max_concurrency",
    "max_model_len",
    "tensor_parallel",
    "pipeline_parallel",
    "gpu_memory_utilization",
    "quantization",
    "kv_cache_dtype",
    "activation_gib_per_gpu",
    "overhead_gib_per_gpu",
    "argv",
    "reasons",
    "warnings",
    "alternatives",
}


def run(*words: str) -> tuple[int, str, str]:
    """Exit code, standard output, and what the operator is told; an InputError becomes 2 as in the program."""
    result = CliRunner().invoke(cli, ["size", *words])
    if isinstance(result.exception, InputError):
        return 2, result.stdout, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def config(tmp_path: Path):
    def write(values: Any) -> str:
        path = tmp_path / "config.json"
        path.write_text(values if isinstance(values, str) else json.dumps(values))
        return str(path)

    return write


def test_the_keys_of_the_json_are_there_on_yes_and_on_no(config):
    for tag, code in (("h100-sxm-80gb", 0), ("rtx-3060-12gb", 1)):
        exit_code, out, _ = run("--config", config(LLAMA_8B), "--gpu", tag, "--json")
        answer = json.loads(out)
        assert exit_code == code
        assert set(answer) >= JSON_KEYS
        assert answer["fits"] is (code == 0)


def test_a_question_with_every_setting_stated_is_answered(config):
    words = "--gpu h100-sxm-80gb --gpus 4 --quantization fp8 --max-model-len 16384 --gpu-memory-utilization 0.9 --json"
    code, out, _ = run("--config", config(LLAMA_8B), *words.split())
    answer = json.loads(out)
    assert (code, answer["tensor_parallel"], answer["gpu_memory_utilization"]) == (0, 4, 0.9)
    assert answer["weights_gib_per_gpu"] == pytest.approx(2.15, abs=0.01)
    assert answer["kv_bytes_per_token_per_gpu"] == 32768


def test_a_no_says_what_is_short_and_what_would_fit(config):
    _, out, err = run("--config", config(LLAMA_8B), "--gpu", "rtx-4070", "--max-model-len", "8192")
    assert out == ""
    assert "GiB short" in err
    assert "would fit" in err


def test_json_alone_goes_to_stdout(config):
    _, out, err = run("--config", config(LLAMA_8B), "--gpu", "h100-pcie", "--json")
    assert json.loads(out)
    assert err == ""


def test_a_gguf_file_is_sized_by_its_own_bytes(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    code, out, _ = run("--gguf", str(path), "--gpu", "rtx-4090", "--json")
    answer = json.loads(out)
    assert (code, answer["runtime"]) == (0, "llama.cpp")
    assert 0 < answer["weights_gib_per_gpu"] <= path.stat().st_size / 1024**3


def test_a_host_without_a_gpu_is_sized_by_its_memory():
    code, out, _ = run("--model", "qwen3-8b", "--gpu", "cpu", "--memory-mib", "32000", "--json")
    assert (code, json.loads(out)["runtime"]) == (0, "llama.cpp")
    code, _, err = run("--model", "qwen3-8b", "--gpu", "cpu")
    assert (code, "--memory-mib" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--gpu", "h100-pcie"), "0 models are named"),
        (("--model", "gpt-9", "--gpu", "h100-pcie"), "gpt-9 is not in the catalogue"),
        (("--model", "qwen3-8b", "--gpu", "z9"), "z9 is not in the catalogue"),
        (("--config", "nowhere.json", "--gpu", "l40s"), "nowhere.json"),
        (("--gguf", "nowhere.gguf", "--gpu", "l40s"), "nowhere.gguf"),
        (("--model", "qwen3-8b", "--gpu", "l40s", "--gpu-memory-utilization", "1.5"), "--gpu-memory-utilization"),
        (("--model", "qwen3-8b", "--gpu", "l40s", "--memory-ceiling", "0"), "--memory-ceiling"),
        (("--model", "qwen3-8b", "--gpu", "l40s", "--catalog", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_what_cannot_be_used_is_told_and_exits_2(words, told):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert told in err


def test_a_runtime_that_the_gpu_cannot_run_is_a_no_with_the_reason():
    code, _, err = run("--model", "qwen3-8b", "--gpu", "arc-b580", "--runtime", "vllm")
    assert code == 1
    assert "vllm" in err


def test_a_version_that_nobody_knows_is_a_no_that_names_the_known_ones():
    code, _, err = run("--model", "qwen3-8b", "--gpu", "l40s", "--runtime", "vllm", "--runtime-version", "99.0")
    assert code == 1
    assert "99.0" in err


def test_an_unknown_architecture_is_refused_by_its_name(config):
    strange = LLAMA_8B | {"architectures": ["MegaMindForCausalLM"], "model_type": "mega_mind"}
    code, _, err = run("--config", config(strange), "--gpu", "l40s")
    assert code == 2
    assert "MegaMindForCausalLM" in err


def test_all_problems_of_a_config_are_told_at_once_with_file_and_key(config):
    path = config({"model_type": "llama", "hidden_size": "wide", "num_hidden_layers": -1})
    code, out, err = run("--config", path, "--gpu", "l40s", "--json")
    assert code == 2
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
        assert key in err
    assert path in err
    assert len(json.loads(out)["errors"]) >= 4


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"x"', "{}", "\x00", '{"a":' * 5000, "{" * 100_000])
def test_files_that_are_no_config_are_told(config, text):
    code, _, err = run("--config", config(text), "--gpu", "l40s")
    assert code == 2
    assert "config.json" in err


# A valid config with any of its values replaced by anything: an answer or a list of problems, never a traceback.
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@examples(200, HealthCheck.function_scoped_fixture)
@given(st.sampled_from(sorted(LLAMA_8B)), _json)
def test_a_config_with_anything_in_it_is_an_answer_or_a_problem(config, key, value):
    path = config(json.dumps(LLAMA_8B | {key: value}))
    assert run("--config", path, "--gpu", "h100-pcie", "--json")[0] in {0, 1, 2}


@examples(200, HealthCheck.function_scoped_fixture)
@given(st.binary(max_size=400), st.integers(0, 4000))
def test_a_damaged_gguf_is_an_answer_or_a_problem(tmp_path, noise, position):
    whole = tmp_path / "whole.gguf"
    if not whole.exists():
        write_tiny_gguf(whole)
    content = bytearray(whole.read_bytes()[:200_000])
    content[position : position + len(noise)] = noise
    path = tmp_path / "damaged.gguf"
    path.write_bytes(bytes(content))
    assert run("--gguf", str(path), "--gpu", "l40s", "--json")[0] in {0, 1, 2}
