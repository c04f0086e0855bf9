"""Settings that would do nothing, or that do not go with a host's tag: refused, each with its key."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError, Problem
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import HostPlan
from rackserve.settings import load_hosts
from tests.planning.making import SMALL, planned

CPU: dict[str, Any] = {"gpu_tag": "cpu", "memory_mib": 8192}
GPU: dict[str, Any] = {"gpu_tag": "h100-sxm-80gb", "gpu_count": 2, "os": "ubuntu-24.04"}
MAC: dict[str, Any] = {"gpu_tag": "apple-m4-max", "os": "macos-15", "memory_mib": 65536}


def plan_of(host: dict[str, Any], **service: Any) -> HostPlan:
    services = [{"name": "a", "model": SMALL} | service]
    return plan_hosts(load_hosts([("h1", {"services": services} | host)]), load_catalog())[0]


def problems_of(host: dict[str, Any], **service: Any) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as caught:
        plan_of(host, **service)
    return caught.value.problems


@pytest.mark.parametrize(
    "stated",
    [
        {"runtime_version": "0.6.0"},
        {"gpu_share": 0.4},
        {"tensor_parallel": 1},
        {"pipeline_parallel": 2},
        {"gpus": 2},
        {"gpus": [0]},
        {"structured_output": "xgrammar"},
    ],
)
def test_gpu_settings_of_a_service_in_ram_are_refused(stated):
    (problem,) = problems_of(CPU, **stated)
    assert (problem.host, problem.service, problem.key) == ("h1", "a", *stated)
    assert (problem.message, problem.hint) == ("has no meaning for llama.cpp in RAM", "leave it out")


def test_a_pretended_gpu_keeps_the_settings_of_the_real_one():
    host = GPU | {"gpu_simulated": True, "memory_mib": 8192, "driver_branch": "580", "kernel_module": "open"}
    assert not plan_of(host, gpus=2, tensor_parallel=2, gpu_share=0.5).errors
    assert not plan_of(MAC | {"gpu_simulated": True, "gpu_count": 2}).errors


@pytest.mark.parametrize("stated", [{"driver_branch": "580"}, {"kernel_module": "open"}])
def test_driver_settings_of_a_host_without_a_gpu_are_refused(stated):
    (problem,) = problems_of(CPU | stated)
    assert (problem.host, problem.key) == ("h1", *stated)
    assert "without a GPU" in problem.message


@pytest.mark.parametrize("host", [CPU, MAC])
def test_memory_that_is_the_hosts_own_is_there_once(host):
    (problem,) = problems_of(host | {"gpu_count": 2})
    assert (problem.host, problem.key) == ("h1", "gpu_count")
    assert "has one memory, that of the host" in problem.message
    assert not plan_of(host | {"gpu_count": 1}).errors


@pytest.mark.parametrize("runtime", [None, "vllm", "sglang", "tensorrt-llm"])
def test_threads_of_a_runtime_that_computes_on_gpus_alone_are_refused(runtime):
    (problem,) = problems_of(GPU, model="qwen3-8b", runtime=runtime, threads=4)
    assert (problem.service, problem.key) == ("a", "threads")
    assert problem.message == f"has no meaning for {runtime or 'vllm'}"
    assert not plan_of(GPU, runtime="llama.cpp", threads=4).errors


@pytest.mark.parametrize("runtime", ["llama.cpp", "ollama", "lmstudio"])
def test_parallelism_of_llama_cpp_is_refused(runtime):
    problems = problems_of(GPU, runtime=runtime, tensor_parallel=2, pipeline_parallel=1)
    assert [problem.key for problem in problems] == ["tensor_parallel", "pipeline_parallel"]


@pytest.mark.parametrize(
    ("runtime", "stated"), [("llama.cpp", {"runtime_version": "0.6.0"}), ("lmstudio", {"threads": 4})]
)
def test_what_a_runtime_decides_by_itself_is_refused(runtime, stated):
    (problem,) = problems_of(GPU, runtime=runtime, **stated)
    assert (problem.key, problem.message) == (*stated, f"has no meaning for {runtime}")


@pytest.mark.parametrize(
    ("runtime", "known"),
    [
        ("vllm", "auto, xgrammar, guidance, outlines, lm-format-enforcer"),
        ("sglang", "xgrammar, llguidance, outlines, none"),
        ("tensorrt-llm", "xgrammar, llguidance"),
    ],
)
def test_a_grammar_backend_that_would_end_the_start_is_refused(runtime, known):
    (problem,) = problems_of(GPU, model="qwen3-8b", runtime=runtime, structured_output="nonsense")
    assert (problem.key, problem.message) == ("structured_output", f"nonsense is not known to {runtime}")
    assert problem.hint == f"known: {known}"
    for backend in known.split(", "):
        assert not plan_of(GPU, model="qwen3-8b", runtime=runtime, structured_output=backend).errors


def test_a_grammar_backend_is_refused_for_vllm_in_ram_too():
    (problem,) = problems_of(CPU, model="qwen3-0.6b", runtime="vllm", structured_output="llguidance")
    assert problem.key == "structured_output"


def test_what_vllm_cannot_do_on_a_pretended_gpu_is_said_rightly():
    (problem,) = problems_of(GPU | {"gpu_simulated": True, "memory_mib": 8192}, runtime="vllm")
    assert "with gpu_tag cpu" in problem.hint


def test_everything_that_is_wrong_with_services_in_ram_is_told_at_once():
    wrong = {"runtime": "sglang", "quantization": "Q3", "kv_cache_dtype": "fp8", "concurrency": 300, "gpus": 2}
    assert {problem.key for problem in problems_of(CPU | {"kernel_module": "open"}, **wrong)} == {
        *wrong,
        "kernel_module",
    }


@pytest.mark.parametrize(("stated", "used"), [("auto", "f16"), ("F16", "f16"), ("Q8_0", "q8_0"), (None, "f16")])
def test_types_of_kv_cache_may_be_left_to_llama_cpp_and_written_in_capitals(stated, used):
    assert planned(4096, kv_cache_dtype=stated).as_dict()["kv_cache_dtype"] == used


@pytest.mark.parametrize("gpus", [True, False, 0, 65, 1.0, "1", [], [64], [-1], [True], ["0"], None, {}])
def test_gpus_are_a_number_or_numbers(gpus):
    with pytest.raises(InputError) as caught:
        load_hosts([("h1", GPU | {"services": [{"name": "a", "model": SMALL, "gpus": gpus}]})])
    (problem,) = caught.value.problems
    assert (problem.service, problem.key) == ("a", "gpus")
    assert problem.message == f"expected a number of GPUs from 1 to 64, or a list of GPU numbers, found {gpus!r}"


def test_a_gpu_is_named_once():
    with pytest.raises(InputError, match="gpus: expected each GPU number once"):
        load_hosts([("h1", GPU | {"services": [{"name": "a", "model": SMALL, "gpus": [0, 0]}]})])


@pytest.mark.parametrize("gpus", [[0, 1], (0, 1)])
def test_gpu_numbers_are_a_list_or_a_tuple(gpus):
    assert load_hosts([("h1", GPU | {"services": [{"name": "a", "model": SMALL, "gpus": gpus}]})])[0].services[
        0
    ].gpus == (0, 1)


@pytest.mark.parametrize("branch", ["580", "30.30"])
def test_branches_of_nvidia_and_series_of_amd_can_be_stated(branch):
    assert load_hosts([("h1", GPU | {"driver_branch": branch})])[0].driver_branch == branch


@pytest.mark.parametrize("branch", ["580.", "five", "580.1.2", "580\n", ""])
def test_what_is_no_driver_branch_is_refused(branch):
    with pytest.raises(InputError, match="driver_branch"):
        load_hosts([("h1", GPU | {"driver_branch": branch})])


def test_amds_series_is_planned_with():
    host = {"gpu_tag": "mi300x", "os": "ubuntu-24.04", "driver_branch": "31.50"}
    stack = plan_of(host, model="qwen3-8b").stack
    assert stack is not None
    assert stack.driver_branch == "31.50"


def test_memory_of_a_host_has_an_end():
    assert load_hosts([("h1", CPU | {"memory_mib": 64 * 2**20})])
    with pytest.raises(InputError, match="memory_mib"):
        load_hosts([("h1", CPU | {"memory_mib": 64 * 2**20 + 1})])
