"""Numbers inside the formulas of planning, each worked out by hand from what its formula stands for."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from rackserve.domain.shape import Layer, Matrix, StateCache
from rackserve.planning.activation import _expert_workspace, activation_bytes
from rackserve.planning.budget import Budget, sglang_fraction, trtllm_fraction, vllm_utilization
from rackserve.planning.fit import _ports
from rackserve.planning.gguf_instance import GgufInstance
from rackserve.planning.gguf_sizing import _instance
from rackserve.planning.gguf_weights import MIXES, _matrix_bits, gguf_weights
from rackserve.planning.memory import _layer_floats
from rackserve.planning.parallel import _suggestion
from tests.planning.sizing import request, shape, sized
from tests.planning.test_ram_engine import planned as vllm_in_ram

ENGINE: Any = SimpleNamespace(hidden_copies=2, sampler_copies=3, graphs_counted=False, context_mib=0)


@pytest.mark.parametrize(("tensor", "width"), [(1, 14336), (2, 7168)])
def test_a_step_holds_three_times_the_feed_forward_layer_and_the_hidden_states(tensor, width):
    assert activation_bytes(shape(), ENGINE, tensor, 1, 1000) == 1000 * (3 * width + 2 * 4096) * 2


def test_sampling_holds_logits_in_32_bits_on_the_last_stage_alone():
    sampling = 4096 * 128256 * 4 * 3 + 4096 * 4096 * 2
    assert activation_bytes(shape(), ENGINE, 1, 4096, 4096) == sampling
    assert activation_bytes(shape(), ENGINE, 1, 4096, 4096, last_stage=False) == 4096 * (3 * 14336 + 2 * 4096) * 2


@pytest.mark.parametrize(("width", "wider"), [(768, 2048), (1024, 2048), (1025, 2050)])
def test_experts_work_in_the_wider_output_and_the_activation_between(width, wider):
    # The first matrix has two outputs of the width, the second as many as the model's hidden states.
    model = replace(request(model="qwen3-30b-a3b").shape, expert_intermediate=width)
    assert _expert_workspace(model, 1, 10) == 10 * 8 * (wider + width) * 2


def test_memory_shares_have_three_digits_and_are_rounded_down():
    used = Budget(total=10**6, weights=0, activation=0, overhead=0, graphs=1234, kv=0)
    assert vllm_utilization(used, ENGINE, 0.85) == 0.848
    assert sglang_fraction(used, ENGINE, 0.85) == 0.848
    # Of 1,000,000 - 123,456 are (850,000 - 123,456) / 876,544 = 0.82887 for the cache.
    assert trtllm_fraction(replace(used, graphs=0, weights=123_456), 0.85) == 0.828


def test_65535_is_the_last_port():
    stated = [SimpleNamespace(name=str(port), port=port, nodes=()) for port in range(8001, 65535)]
    host: Any = SimpleNamespace(services=[*stated, SimpleNamespace(name="last", port=None, nodes=())])
    assert _ports(host)["last"] == 65535


def gguf(**changes: Any) -> GgufInstance:
    found = _instance(request("h200", "llama-3.1-8b-instruct", runtime="llama.cpp", **changes), "Q4_K_M")
    assert isinstance(found, GgufInstance), found
    return found


def test_with_layers_left_in_ram_states_cross_over_and_a_layer_is_copied():
    one = gguf()
    added = one.compute(8192, partial=True) - one.compute(8192)
    # Hidden states of 512 tokens there and back in 32 bits, and one of 32 layers.
    assert added == 2 * 4096 * 512 * 4 + one.weights.layers // 32


def test_the_embedding_of_a_file_of_an_unknown_type_is_taken_to_be_q8_0():
    found = gguf_weights(shape(), "IQ3_XXS", 10**10)
    assert found is not None
    assert found.embedding == found.output == math.ceil(128256 * 4096 * 34 / 32)


def test_what_is_no_linear_is_kept_in_32_bits():
    assert _matrix_bits(Matrix("norm", 4096, linear=False), MIXES["Q4_K_M"]) == 4096 * 32


def test_eight_ways_to_split_are_named():
    many = shape(num_attention_heads=192, num_key_value_heads=192, hidden_size=192 * 64, intermediate_size=192 * 256)
    assert _suggestion(many, 192) == "tensor parallel can be 1, 2, 3, 4, 6, 8, 12, 16"


@pytest.mark.parametrize(("dtype", "copies"), [("f16", 1), ("q8_0", 2)])
def test_attention_holds_three_states_two_queries_and_the_keys_where_it_is_the_widest(dtype, copies):
    narrow = shape(hidden_size=64, head_dim=128, intermediate_size=64)
    # 32 heads of 128, of which a quantized cache has another copy; keys and values of 8 heads. 512 floats are slack.
    assert _layer_floats(narrow, dtype) == 3 * 64 + 2 * 4096 * copies + 8 * 256 + 512
    beside = replace(narrow, layers=(*narrow.layers, Layer((), (StateCache(conv=100, ssm=100),))))
    assert _layer_floats(beside, dtype) == 3 * 64 + 4 * 4096 * copies + 2 * 8 * 256 + 512


def test_a_server_in_ram_may_have_a_quarter_of_its_weights_more_than_it_needs():
    (chat,) = vllm_in_ram(65536).gpu_services
    used = chat.sizing.used_bytes + chat.sizing.weights_bytes / 4
    assert chat.launch.memory_max_mib == math.ceil(used / 1024**2)


def test_a_share_that_would_not_start_is_lowered_to_the_last_of_three_digits_that_does():
    # 525 MiB of 4096 are the process's own: 0.87183 are free.
    assert sized(total_mib=4096, ceiling=0.95, max_model_len=256).utilization == 0.871
