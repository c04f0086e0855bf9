"""Which hosts could run a model: the answers of single hosts, and their order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.catalog.shapes import shape_of
from rackserve.planning.gpu_fit import offered
from rackserve.planning.instance import size_instance
from rackserve.planning.question import Question
from rackserve.planning.where import NO_GPU_FREE, Placement, counts, in_order, place
from rackserve.settings import load_hosts
from tests.planning.making import plan

CATALOG = load_catalog()
CPU: dict[str, Any] = {"gpu_tag": "cpu", "memory_mib": 65536}


def asked(name: str, **changes: Any) -> Question:
    model = CATALOG.models[name]
    files = tuple((file.quantization, file.size_bytes) for file in model.gguf)
    question = Question(name, shape_of(model), offered(model, "vllm"), files, has_checkpoint=bool(model.checkpoints))
    return replace(question, **changes)


def placed(model: str | Question, name: str = "h1", **host: Any) -> Placement:
    question = asked(model) if isinstance(model, str) else model
    return place(plan(load_hosts([(name, host)])[0]), CATALOG, question)


@pytest.mark.parametrize(
    ("most", "expected"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (4, (1, 2, 4)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))]
)
def test_powers_of_two_and_all_gpus_are_tried(most, expected):
    assert counts(most) == expected


def test_the_fewest_gpus_and_the_best_are_both_told():
    found = placed(asked("llama-3.3-70b-instruct", quantization="fp8"), gpu_tag="h100-sxm-80gb", gpu_count=8)
    assert found.fewest is not None
    assert found.best is not None
    # 67.7 GiB of FP8 weights are over 85 % of one H100 with its working memory, and half of them are not.
    assert (found.fewest.request.gpus, found.best.request.gpus) == (2, 8)
    assert found.best.max_concurrency > found.fewest.max_concurrency
    assert found.best.max_model_len == int(131072 * 0.8) // 256 * 256
    assert found.beside == found.best
    assert found.reason == ""


def test_the_answer_is_that_of_size():
    found = placed("qwen3-8b", gpu_tag="l40s")
    assert found.best is not None
    assert size_instance(found.best.request) == found.best


def test_a_stated_length_and_concurrency_are_kept():
    question = asked("qwen3-8b", max_model_len=8192, concurrency=20, avg_tokens=2000)
    found = placed(question, gpu_tag="rtx-4090")
    assert found.best is not None
    assert (found.best.max_model_len, found.best.max_num_seqs) == (8192, 20)
    assert not placed(replace(question, concurrency=4000), gpu_tag="rtx-4090").fits


def test_a_host_that_cannot_says_by_how_much():
    found = placed("llama-3.3-70b-instruct", gpu_tag="rtx-4090")
    assert not found.fits
    assert "GiB short" in found.reason
    assert found.as_dict() | {"fits": False, "gpus": None, "max_model_len": None} == found.as_dict()


def test_llamacpp_is_tried_where_vllm_does_not_fit():
    # 32B at 4 bits does not go into 12 GB, and llama.cpp may leave layers in RAM.
    found = placed("qwen2.5-32b-instruct", gpu_tag="rtx-3060-12gb", memory_mib=65536)
    assert found.best is not None
    assert found.best.request.runtime == "llama.cpp"
    assert found.best.offload is not None
    assert 0 < found.best.offload.gpu_layers < found.best.offload.layers
    assert any("no GGUF file" in warning for warning in found.best.warnings)
    assert not placed(asked("qwen2.5-32b-instruct", runtime="vllm"), gpu_tag="rtx-3060-12gb", memory_mib=65536).fits


def test_llamacpp_has_as_many_slots_as_its_memory_holds():
    found = placed("llama-3.1-8b-instruct", gpu_tag="apple-m3-ultra", memory_mib=262144)
    assert found.best is not None
    slots = found.best.max_num_seqs
    assert slots > 2
    one_more = size_instance(replace(found.best.request, concurrency=slots + 1))
    assert not isinstance(one_more, str)
    assert not one_more.fits


# beside what is planned

CHAT = {"name": "chat", "model": "qwen3-8b", "max_model_len": 8192, "concurrency": 4}


def test_free_gpus_are_what_planned_services_leave():
    found = placed("qwen3-32b", gpu_tag="h100-sxm-80gb", gpu_count=4, services=[CHAT | {"gpus": 2}])
    assert found.taken == ((0, ("chat",)), (1, ("chat",)))
    assert found.best is not None
    assert found.beside is not None
    assert (found.best.request.gpus, found.beside.request.gpus) == (4, 2)


def test_two_services_on_one_gpu_take_one():
    services = [CHAT | {"gpus": [1]}, CHAT | {"name": "other", "gpus": [1]}]
    found = placed("qwen3-8b", gpu_tag="h100-sxm-80gb", gpu_count=2, services=services)
    assert found.taken == ((1, ("chat", "other")),)
    assert found.beside is not None
    assert found.beside.request.gpus == 1


def test_without_a_free_gpu_it_is_not_beside():
    found = placed("qwen3-8b", gpu_tag="rtx-4090", services=[CHAT])
    assert found.fits
    assert found.beside is None
    assert found.reason == NO_GPU_FREE
    assert found.as_dict()["fits_beside"] is False


def test_too_few_free_gpus_are_told_with_what_is_short():
    question = asked("llama-3.3-70b-instruct", quantization="fp8")
    found = placed(question, gpu_tag="h100-sxm-80gb", gpu_count=2, services=[CHAT])
    assert found.fits
    assert found.beside is None
    assert "1 GPUs that planned services leave" in found.reason
    assert "GiB short" in found.reason


def test_the_version_that_a_planned_service_states_holds_for_ours_beside_it():
    services = [CHAT | {"runtime": "vllm", "runtime_version": "0.32.0"}]
    found = placed("qwen3-8b", gpu_tag="h100-sxm-80gb", gpu_count=2, services=services)
    assert found.best is not None
    assert found.beside is not None
    assert (found.best.request.version, found.beside.request.version) == ("0.33.0", "0.32.0")


# hosts that serve from RAM


def test_a_cpu_host_serves_with_llamacpp_from_ram():
    found = placed("qwen3-8b", **CPU)
    assert found.best is not None
    assert found.best.request.runtime == "llama.cpp"
    assert found.beside == found.best


def test_ram_of_planned_services_is_not_there_twice():
    service = {"name": "a", "model": "qwen3-8b", "max_model_len": 32768, "concurrency": 10}
    found = placed("qwen3-8b", **CPU, services=[service])
    assert found.best is not None
    assert found.used_mib > 48_000
    assert found.taken == ()
    assert found.beside is None
    assert "MiB of RAM" in found.reason


def test_what_is_larger_than_the_ram_does_not_fit():
    assert not placed("deepseek-v3", **CPU).fits
    assert not placed("llama-3.3-70b-instruct", gpu_tag="apple-m4-max", memory_mib=16384).fits


def test_vllm_needs_a_gpu():
    assert "needs a GPU" in placed(asked("qwen3-8b", runtime="vllm"), **CPU).reason


def test_a_simulated_gpu_is_served_from_ram():
    found = placed("qwen3-0.6b", gpu_tag="rtx-4090", gpu_simulated=True, memory_mib=4096)
    assert found.best is not None
    assert found.best.request.runtime == "llama.cpp"
    assert found.best.stage.total == 4096 * 1024**2


@pytest.mark.parametrize("tag", ["cpu", "apple-m4-max"])
def test_memory_that_nobody_stated_is_asked_for(tag):
    assert "memory_mib is needed" in placed("qwen3-0.6b", gpu_tag=tag).reason


# what stands in the way


@pytest.mark.parametrize(
    ("host", "changes", "word"),
    [
        ({"gpu_tag": "rtx-4090", "os": "macos-15"}, {}, "macOS"),
        ({"gpu_tag": "rtx-4090"}, {"quantization": "fp7"}, "fp7"),
        ({"gpu_tag": "rtx-4090"}, {"max_model_len": 1_000_000}, "1000000"),
        ({"gpu_tag": "rtx-4090"}, {"runtime": "vllm", "has_checkpoint": False}, "GGUF"),
        ({"gpu_tag": "apple-m4-max", "memory_mib": 65536}, {"runtime": "vllm"}, "vllm"),
    ],
)
def test_reasons_are_sentences(host, changes, word):
    found = placed(asked("qwen3-8b", **changes), **host)
    assert not found.fits
    assert word in found.reason


def test_a_context_of_a_few_tokens_is_no_answer():
    found = placed(asked("qwen3-32b", runtime="vllm"), gpu_tag="rx-7900-xtx")
    assert not found.fits
    assert "tokens fit beside the weights" in found.reason or "short" in found.reason


# order


def test_hosts_that_fit_come_first_the_most_requests_first():
    answers = [
        placed("qwen3-8b", "small", gpu_tag="rtx-4090"),
        placed("qwen3-8b", "none", gpu_tag="rtx-4060-ti-8gb", memory_ceiling=0.3),
        placed("qwen3-8b", "large", gpu_tag="h200"),
        placed("qwen3-8b", "also-none", gpu_tag="rtx-4060-ti-8gb", memory_ceiling=0.3),
    ]
    assert [placement.host.name for placement in in_order(answers)] == ["large", "small", "also-none", "none"]
