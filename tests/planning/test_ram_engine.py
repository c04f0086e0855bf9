"""vLLM in a host's own memory: as much as the demand needs, beside llama.cpp's services, or refused with numbers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackserve.domain.errors import InputError
from rackserve.planning.memory import MIB
from rackserve.planning.plans import HostPlan
from tests.examples import examples
from tests.planning.making import cpu_host, plan

MODEL = "qwen3-0.6b"


def planned(memory_mib: int = 65536, *others: dict[str, Any], **service: Any) -> HostPlan:
    mine = {"name": "chat", "model": MODEL, "runtime": "vllm", "max_model_len": 4096, "concurrency": 4} | service
    return plan(cpu_host(memory_mib, [mine, *others]))


def test_it_takes_what_the_demand_needs_and_not_all_there_is():
    (chat,) = planned().gpu_services
    sizing = chat.sizing
    assert sizing.needed_bytes <= sizing.kv_cache_bytes < 1.5 * sizing.needed_bytes
    assert sizing.max_concurrency >= 4
    assert chat.gpus == ()
    assert planned().errors == ()


def test_the_cache_is_stated_in_bytes_and_the_unit_has_a_limit():
    (chat,) = planned().gpu_services
    told = dict(pairwise(chat.launch.argv))
    assert told["--kv-cache-memory-bytes"] == str(chat.sizing.kv_cache_bytes)
    assert chat.launch.memory_max_mib is not None
    assert chat.launch.memory_max_mib * MIB >= chat.sizing.used_bytes
    assert (chat.launch.vendor, chat.launch.gpu_mib) == ("none", 0)


def test_llama_cpp_gets_what_is_left():
    alone = plan(cpu_host(8192, [{"name": "other", "model": MODEL}])).services[0].max_model_len
    both = planned(8192, {"name": "other", "model": MODEL}, concurrency=2)
    assert not both.errors
    assert both.services[0].max_model_len < alone
    assert both.used_mib <= both.budget_mib
    assert {service.port for service in both.all_services} == {8001, 8002}


def test_what_does_not_fit_is_refused_with_numbers_and_the_others_are_planned():
    both = planned(2048, {"name": "other", "model": MODEL, "max_model_len": 1024})
    (problem,) = both.errors
    assert problem.service == "chat"
    assert "does not fit into 1740 MiB left of 85% of 2048 MiB" in problem.message
    assert [service.name for service in both.services] == ["other"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("gpus", 2), ("threads", 3), ("tensor_parallel", 2), ("gpu_share", 0.5), ("pipeline_parallel", 2)],
)
def test_what_means_nothing_on_the_cpu_is_refused(key, value):
    with pytest.raises(InputError) as caught:
        planned(**{key: value})
    assert [problem.key for problem in caught.value.problems] == [key]


def test_nothing_is_said_of_gpus():
    (chat,) = planned().gpu_services
    reasons = " ".join(chat.sizing.all_reasons())
    assert "one GPU" not in reasons
    assert "per GPU" not in reasons
    assert "of the host's memory" in reasons


def test_a_stack_that_cannot_be_is_told_once_and_the_others_are_planned():
    both = planned(65536, {"name": "other", "model": MODEL}, runtime_version="0.1")
    assert [service.name for service in both.all_services] == ["other"]
    (problem,) = both.errors
    assert "vllm 0.1 is not in the catalogue" in problem.message


def test_a_stated_version_is_everybodys():
    both = planned(131072, {"name": "other", "model": MODEL, "runtime": "vllm"}, runtime_version="0.31.0")
    assert not both.errors
    assert {service.runtime.version for service in both.gpu_services} == {"0.31.0"}


def test_a_length_that_nobody_stated_is_not_said_to_be_asked_for():
    (chat,) = planned(262144, max_model_len=None).gpu_services
    assert "asked for" not in chat.sizing.length_reason
    assert "80%" in chat.sizing.length_reason


def test_the_cpu_is_called_so():
    (chat,) = planned().gpu_services
    assert "nothing smaller is published that the CPU multiplies" in " ".join(chat.sizing.all_reasons())


def test_what_has_files_for_llama_cpp_is_told_so_and_nothing_else():
    hints = {model: planned(1024, model=model).errors[0].hint for model in (MODEL, "qwen2.5-14b-instruct")}
    assert hints == {MODEL: "runtime llama.cpp serves smaller files of it", "qwen2.5-14b-instruct": ""}


@pytest.mark.parametrize("dtype", ["auto", "fp8", "fp8_e5m2", None])
def test_a_cache_is_kept_in_what_the_cpu_knows(dtype):
    assert not planned(kv_cache_dtype=dtype).errors


@pytest.mark.parametrize("dtype", ["bf16", "float16", "q8_0"])
def test_a_cache_in_another_type_is_refused(dtype):
    (problem,) = planned(kv_cache_dtype=dtype).errors
    assert f"kv_cache_dtype {dtype} is not known to vllm" in problem.message


@examples(60)
@given(st.integers(2048, 200_000), st.integers(256, 32768), st.integers(1, 64))
def test_it_never_takes_more_than_the_budget(memory_mib, length, concurrency):
    result = planned(memory_mib, max_model_len=length, concurrency=concurrency)
    assert len(result.gpu_services) + len(result.errors) == 1
    assert result.used_mib <= result.budget_mib + 1
    for service in result.gpu_services:
        assert service.sizing.kv_cache_bytes >= service.sizing.needed_bytes
