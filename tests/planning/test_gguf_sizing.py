"""What llama.cpp, Ollama and LM Studio are asked for, refused, and told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rackserve.catalog.shapes import shape_of
from rackserve.planning.gguf_instance import resident
from rackserve.planning.gguf_weights import read_weights
from rackserve.planning.instance import size_instance
from rackserve.planning.question import Question
from rackserve.planning.sized import Sizing
from rackserve.planning.throughput import Decode, decode_bound
from rackserve.runtimes.commands import argv
from rackserve.runtimes.endpoint import Endpoint
from tests.planning.sizing import CATALOG, impossible, request, shape, sized

BIG = {"model": "llama-3.3-70b-instruct", "runtime": "llama.cpp", "max_model_len": 4096}
CPU = {"model": "qwen3-8b", "runtime": "llama.cpp", "total_mib": 12_000, "host_mib": 12_000}


# the host's memory


def test_the_share_of_the_hosts_memory_is_not_that_of_the_gpu():
    asked = BIG | {"host_mib": 60_000}
    assert sized("rtx-4060-ti-8gb", **asked, host_ceiling=0.85, ceiling=0.7).fits
    assert not sized("rtx-4060-ti-8gb", **asked, host_ceiling=0.4).fits


def test_a_host_with_too_little_memory_is_told_what_it_lacks():
    found = sized("rtx-4060-ti-8gb", **BIG, host_mib=16_000)
    assert not found.fits
    assert found.offload is not None
    needed = found.offload.host_bytes / 1024**3
    assert f"{needed:.2f} GiB of the host's memory are needed, 13.28 GiB of memory_mib may be used" in found.short
    assert not any("with memory_mib stated" in warning for warning in found.warnings)


def test_without_a_stated_memory_the_gpu_lacks_and_a_host_might_help():
    found = sized("rtx-4060-ti-8gb", **BIG)
    assert "KV cache on each GPU" in found.short
    assert any("with memory_mib stated" in warning for warning in found.warnings)


# lengths


def test_a_short_context_is_an_answer_where_nothing_can_be_left_in_ram():
    alone = sized("rtx-4090", model="qwen3-32b", runtime="llama.cpp")
    assert alone.fits
    assert 256 <= alone.max_model_len < 8192
    assert "the longest that fits" in alone.length_reason
    beside = sized("rtx-4090", model="qwen3-32b", runtime="llama.cpp", host_mib=100_000)
    assert (beside.fits, beside.max_model_len) == (True, 8192)
    assert not resident(beside)


def test_too_little_ram_is_no_worse_than_none():
    none, little = (sized("rtx-4090", model="qwen3-32b", runtime="llama.cpp", host_mib=mib) for mib in (None, 1000))
    assert little.fits
    assert little.max_model_len == none.max_model_len


def test_a_cpu_serves_what_its_memory_holds():
    found = sized("cpu", **CPU | {"total_mib": 7_500, "host_mib": 7_500})
    assert found.fits
    assert found.max_model_len < 8192


@pytest.mark.parametrize(
    ("average", "length", "reason"),
    [(None, 32768, "80% of the nominal 40960"), (30_000, 36096, "1.2 x avg_tokens 30000")],
)
def test_what_decided_the_length_is_said(average, length, reason):
    found = sized("h200", model="qwen3-8b", runtime="llama.cpp", avg_tokens=average)
    assert (found.max_model_len, found.length_reason) == (length, reason)


def test_an_average_decides_only_where_it_fits():
    found = sized("rtx-4060-ti-8gb", model="qwen3-8b", runtime="llama.cpp", avg_tokens=34_000, concurrency=1)
    assert not found.fits
    assert found.max_model_len >= 1.2 * 34_000


def test_a_model_with_less_than_one_step_gets_no_more_than_it_was_made_for():
    found = sized("h200", model=shape(max_position_embeddings=200), runtime="llama.cpp")
    assert found.max_model_len == 200
    assert "80%" not in found.length_reason


def test_an_average_longer_than_the_model_is_refused():
    assert "avg_tokens 100000" in impossible("h200", model="qwen3-8b", runtime="llama.cpp", avg_tokens=100_000)


# a host without a GPU


def test_without_a_gpu_no_layer_is_on_one():
    found = sized("cpu", **CPU)
    assert found.fits
    assert resident(found)
    answer = found.as_dict()
    assert answer["gpu_layers"] == 0
    assert answer["host_memory_gib"] == answer["used_gib_per_gpu"] > 4
    told = " ".join((*found.all_reasons(), found.parallel.reason))
    assert "one GPU" not in told
    assert "the host's memory" in told


def test_unified_memory_has_its_layers_on_the_gpu():
    found = sized("apple-m4-max", model="qwen3-8b", runtime="llama.cpp", total_mib=48_000, host_mib=65_536)
    assert found.as_dict()["gpu_layers"] == 36
    assert resident(found)


def test_a_cpu_of_known_bandwidth_is_bound_by_it():
    found = sized("cpu", **CPU)
    fast = replace(found.request, gpu=found.request.gpu.model_copy(update={"bandwidth_gb_s": 100.0}))
    answer = size_instance(fast)
    assert isinstance(answer, Sizing)
    assert isinstance(decode_bound(answer, 1, 100), Decode)


# names


def test_names_are_known_in_any_case():
    found = sized("rtx-4090", model="qwen3-8b", runtime="llama.cpp", quantization="q4_k_m", kv_cache_dtype="Q8_0")
    assert (found.quantization, found.request.kv_cache_dtype) == ("Q4_K_M", "q8_0")
    offered = {"offered": ("Q4_K_M",), "files": (("Q4_K_M", 5_000_000_000),)}
    assert sized("rtx-4090", model="qwen3-8b", runtime="llama.cpp", quantization="q4_k_m", **offered).fits


@pytest.mark.parametrize(
    "changes", [{"kv_cache_dtype": "q8_0"}, {"concurrency": 4, "max_model_len": 16384}, {"concurrency": 200}]
)
def test_what_lms_load_cannot_be_told_is_refused_with_what_would_do(changes):
    asked = replace(request("rtx-4090", model="qwen3-8b", runtime="llama.cpp"), runtime="lmstudio")
    reason = size_instance(replace(asked, avg_tokens=1000, **changes))
    assert isinstance(reason, str)
    assert "llama.cpp" in reason


def test_requests_of_lm_studio_share_one_context_no_longer_than_the_models():
    asked = replace(request("rtx-4090", model="qwen3-8b", runtime="llama.cpp"), runtime="lmstudio")
    shared = size_instance(replace(asked, concurrency=4))
    assert isinstance(shared, Sizing)
    assert shared.fits
    words = argv(shared, Endpoint("chat", "m"))
    assert words[words.index("--parallel") + 1] == "4"
    assert words[words.index("--context-length") + 1] == str(4 * shared.max_model_len)
    assert 4 * shared.max_model_len <= asked.shape.context_length
    plain = size_instance(replace(asked, kv_cache_dtype="F16"))
    assert isinstance(plain, Sizing)
    assert (plain.fits, plain.max_num_seqs) == (True, 1)


# a file whose header was read

PARTS = (300_000_000, 400_000_000)
SIZE = 5_000_000_000


def test_a_question_passes_the_parts_of_its_file_on():
    files = (("Q4_K_M", SIZE),)
    question = Question("m", shape_of(CATALOG.models["qwen3-8b"]), files=files, file_parts=PARTS)
    asked = question.request(CATALOG.gpus["rtx-4090"], 24_000, "llama.cpp", "0.6.0", CATALOG)
    assert asked.file_parts == PARTS


def test_a_step_reads_the_layers_that_the_header_tells_of():
    asked = request("rtx-4090", model="qwen3-8b", runtime="llama.cpp", files=(("Q4_K_M", SIZE),), file_parts=PARTS)
    found = size_instance(asked)
    assert isinstance(found, Sizing)
    bound = decode_bound(found, 1, 1)
    assert isinstance(bound, Decode)
    parts = read_weights(SIZE, *PARTS)
    assert bound.weight_bytes == parts.layers + parts.output == SIZE - PARTS[0]
