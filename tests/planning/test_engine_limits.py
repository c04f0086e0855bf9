"""What an engine does at its start that the plan has to know: states, replicas, stages, types, formats."""

from __future__ import annotations

import pytest

from rackserve.catalog.shapes import shape_of
from rackserve.domain.policy import RESERVE
from rackserve.planning.alternatives import alternatives
from rackserve.planning.engine_instance import kv_layouts
from rackserve.runtimes.commands import argv
from rackserve.runtimes.endpoint import Endpoint
from tests.planning.sizing import CATALOG, impossible, request, sized

HYBRID = shape_of(CATALOG.models["qwen3.6-35b-a3b"])


def test_a_hybrid_is_given_no_more_sequences_than_states_have_blocks_for():
    # vLLM 0.33 stops with "max_num_seqs (256) exceeds available Mamba cache blocks (55)" on this card.
    result = sized("l40s", shape=HYBRID, quantization="fp8", max_model_len=None)
    assert result.fits
    (layout,) = kv_layouts(result.request, result.parallel, 2.0)
    reserve = int(result.request.total_bytes * RESERVE)
    assert result.max_num_seqs <= layout.blocks(result.kv_cache_bytes - reserve)
    # Eight more leave less than one block for each: this is the most.
    assert 55 < result.max_num_seqs < 256
    more = sized("l40s", shape=HYBRID, quantization="fp8", concurrency=result.max_num_seqs + 8, avg_tokens=1)
    assert more.max_num_seqs > layout.blocks(more.kv_cache_bytes - reserve)
    assert "recurrent states" in result.batch_reason


def test_a_length_that_was_asked_for_comes_before_more_sequences():
    open_length = sized("l40s", shape=HYBRID, quantization="fp8")
    longer = sized("l40s", shape=HYBRID, quantization="fp8", max_model_len=open_length.max_model_len + 16384)
    assert longer.fits
    assert longer.max_num_seqs < open_length.max_num_seqs


def test_a_hybrid_with_room_for_all_states_keeps_the_engines_own_number():
    assert sized("h200", shape=HYBRID, quantization="fp8").max_num_seqs == 1024


def test_every_replica_has_its_part_of_the_requests():
    alone = sized(gpus=2, concurrency=25, max_model_len=8192)
    four = sized(gpus=8, tensor_parallel=2, concurrency=100, max_model_len=8192)
    assert four.parallel.replicas == 4
    assert four.max_num_seqs == 25
    assert four.needed_bytes == alone.needed_bytes
    assert four.kv_cache_tokens == 4 * alone.kv_cache_tokens
    assert any("starts one replica" in warning for warning in four.warnings)


def test_the_parts_of_a_stage_are_those_of_one_gpu():
    result = sized("mi300x", "deepseek-v3", gpus=16)
    assert result.parallel.pipeline == 2
    parts = result.weights_bytes + result.stage.activation + result.stage.overhead + result.stage.graphs
    assert parts + result.kv_cache_bytes == result.used_bytes


def test_graphs_that_come_on_top_of_the_share_stay_below_the_ceiling_too():
    result = sized(version="0.19.0")
    assert result.utilization < 0.85
    assert result.used_bytes <= 0.85 * result.request.total_bytes


@pytest.mark.parametrize(
    ("runtime", "asked", "told"),
    [
        ("vllm", "fp16", "float16"),
        ("vllm", "bf16", "bfloat16"),
        ("sglang", "fp8", "fp8_e4m3"),
        ("sglang", "bfloat16", "bf16"),
    ],
)
def test_the_kv_cache_has_the_engines_own_name_of_its_type(runtime, asked, told):
    words = argv(sized(runtime=runtime, kv_cache_dtype=asked), Endpoint("chat", "m"))
    assert words[words.index("--kv-cache-dtype") + 1] == told


@pytest.mark.parametrize(("runtime", "dtype"), [("sglang", "fp16"), ("tensorrt-llm", "bf16"), ("vllm", "q8_0")])
def test_a_type_that_the_engine_lacks_is_refused_with_those_it_has(runtime, dtype):
    assert "known: auto, fp8" in impossible(runtime=runtime, kv_cache_dtype=dtype)


def test_what_trtllm_serve_takes_from_a_file_is_said():
    result = sized(runtime="tensorrt-llm", kv_cache_dtype="fp8")
    assert any("kv_cache_config with dtype fp8" in warning for warning in result.warnings)


@pytest.mark.parametrize("tag", ["mi210", "rx-7900-xtx"])
def test_an_amd_gpu_without_fp8_keeps_no_cache_in_it(tag):
    assert "needs a GPU with fp8" in impossible(tag, kv_cache_dtype="fp8")


def test_a_format_that_is_not_listed_is_refused_with_those_that_are():
    assert "it has none, fp8" in impossible(quantization="awq", offered=("none", "fp8"))


def test_a_format_that_a_config_alone_does_not_have_is_planned_with_a_word():
    result = sized(quantization="awq")
    assert any("not in awq" in warning for warning in result.warnings)


def test_a_word_is_said_where_images_are_not_counted():
    assert any("images" in warning for warning in sized(shape=HYBRID).warnings)
    assert not any("images" in warning for warning in sized().warnings)


def test_what_would_fit_is_neither_two_macs_in_one_nor_a_card_without_kernels():
    mac = request("apple-m4-max", runtime="llama.cpp", total_mib=12000, max_model_len=32768, concurrency=8)
    assert not any("gpus" in dict(entry.change) for entry in alternatives(mac, CATALOG))
    small = request("rtx-4060-ti-8gb", runtime="sglang", version="0.5.23", quantization="none", max_model_len=8192)
    assert "t4" not in {dict(entry.change).get("gpu") for entry in alternatives(small, CATALOG)}


def test_more_gpus_are_offered_with_the_split_that_they_need():
    asked = request(
        shape=shape_of(CATALOG.models["llama-3.3-70b-instruct"]), gpus=1, tensor_parallel=1, max_model_len=8192
    )
    more = [entry for entry in alternatives(asked, CATALOG) if "gpus" in dict(entry.change)]
    assert more
    for entry in more:
        assert sized(**{"shape": asked.shape, "max_model_len": 8192, "tensor_parallel": 1} | dict(entry.change)).fits
