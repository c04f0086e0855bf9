"""The rules of the stack solver on runtimes, CUDA and ROCm, from both sides."""

from __future__ import annotations

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.domain.stack import RuntimeVersions
from rackserve.planning.stack import Stack, StackRequest, solve
from tests.planning.stacking import (
    A100,
    ARC,
    B200,
    CPU,
    L40S,
    M4,
    MI300X,
    RTX_5090,
    T4,
    V100,
    card,
    catalog,
    outcome,
    refused,
    solved,
    the_problem,
)

# CUDA and runtime versions on NVIDIA


def test_cuda_13_needs_driver_580_65_06():
    problem = the_problem(L40S, driver_branch="570", allow_eol=True, runtimes=["vllm 0.33.0"])
    assert "CUDA 13.0, which needs driver 580.65.06 or newer, and this is 570" in problem.message
    stack = solved(L40S, runtimes=["vllm 0.33.0"])
    assert stack.cuda == "13.0"
    runtime = stack.runtimes["vllm"]
    assert (runtime.version, runtime.install, runtime.python, runtime.torch) == ("0.33.0", "wheel", "3.12", "2.14.0")


@pytest.mark.parametrize(("version", "fits"), [("580.65.05", False), ("580.65.06", True), ("580.9", False)])
def test_the_floor_is_compared_part_by_part(version, fits):
    early = load_catalog().stacks.nvidia_drivers["580"].model_copy(update={"version": version})
    result = outcome(L40S, facts=catalog(nvidia_drivers={"580": early}), driver_branch="580", runtimes=["vllm 0.33.0"])
    assert isinstance(result, Stack) is fits


def test_cuda_12_runs_on_570():
    assert solved(L40S, driver_branch="570", allow_eol=True, runtimes=["vllm 0.19.1"]).cuda == "12.9"


def test_volta_gets_the_last_vllm_that_has_kernels_for_it():
    messages = [problem.message for problem in refused(V100, runtimes=["vllm 0.33.0"])]
    assert "vllm 0.33.0 has kernels for compute capability 7.5 and up, and v100 has 7.0" in messages
    assert solved(V100, runtimes=["vllm"]).runtimes["vllm"].version == "0.19.1"


@pytest.mark.parametrize(("version", "fits"), [("0.8.5", False), ("0.9.2", False), ("0.10.1", False), ("0.10.2", True)])
def test_blackwell_needs_vllm_0_10_2(version, fits):
    assert isinstance(outcome(RTX_5090, runtimes=[f"vllm {version}"]), Stack) is fits


@pytest.mark.parametrize("runtime", ["sglang", "tensorrt-llm"])
@pytest.mark.parametrize(("gpu", "fits"), [(V100, False), (T4, False), (A100, True), (B200, True)])
def test_sglang_and_tensorrt_llm_need_ampere(runtime, gpu, fits):
    assert isinstance(outcome(gpu, runtimes=[runtime]), Stack) is fits


def test_tensorrt_llm_needs_the_container_toolkit_and_vllm_does_not():
    stack = solved(A100, runtimes=["tensorrt-llm"])
    assert stack.container_toolkit
    assert (stack.runtimes["tensorrt-llm"].install, stack.runtimes["tensorrt-llm"].version) == ("image", "1.2.1")
    assert not solved(A100, runtimes=["vllm"]).container_toolkit


@pytest.mark.parametrize("gpu", [MI300X, ARC, M4, CPU], ids=lambda gpu: gpu.tag)
def test_tensorrt_llm_is_for_nvidia(gpu):
    system = "macos-26" if gpu is M4 else "ubuntu-24.04"
    assert "is for nvidia" in the_problem(gpu, os=system, runtimes=["tensorrt-llm"]).message


def test_a_prerelease_is_taken_only_by_name():
    assert solved(A100, runtimes=["tensorrt-llm 1.4.0rc1"]).runtimes["tensorrt-llm"].version == "1.4.0rc1"


@pytest.mark.parametrize("version", ["0.8.4", "0.34.0", "0.34.0rc1", "1.0", "latest", ""])
def test_a_version_that_the_catalogue_does_not_know_is_refused_with_the_range(version):
    problem = solve(StackRequest("h1", (L40S,), runtimes=(("vllm", version),)), load_catalog())
    assert not isinstance(problem, Stack)
    assert "knows 0.8.5 up to but not including 0.34" in problem[0].message
    assert "[runtimes] entry" in problem[0].hint


@pytest.mark.parametrize("version", ["0.33.0", "v0.33.0", "0.33.1", "0.33.0.post1", "0.33.0rc2", "0.33.0+cu130"])
def test_a_version_within_the_range_is_taken_as_it_is_written(version):
    assert solved(L40S, runtimes=[f"vllm {version}"]).runtimes["vllm"].version == version


def test_a_version_of_the_operators_own_is_taken():
    entry = load_catalog().stacks.runtimes["vllm-0.33"].model_dump() | {
        "id": "mine",
        "first": "0.34.0",
        "before": "0.35",
    }
    own = RuntimeVersions.model_validate(entry | {"pick": "0.34.0"})
    facts = catalog(runtimes={"mine": own})
    assert solved(L40S, facts=facts, runtimes=["vllm 0.34.1"]).runtimes["vllm"].version == "0.34.1"
    # Unasked, the newest whose files are pinned.
    assert solved(L40S, facts=facts, runtimes=["vllm"]).runtimes["vllm"].version == "0.33.0"
    pinned = facts.requirements["vllm-0.33.0-cuda"].model_copy(update={"id": "mine", "version": "0.34.0"})
    facts = facts.model_copy(update={"requirements": {**facts.requirements, "mine": pinned}})
    assert solved(L40S, facts=facts, runtimes=["vllm"]).runtimes["vllm"].version == "0.34.0"


def test_unasked_the_newest_version_is_taken_that_can_be_installed_as_it_is():
    amd = solved(MI300X, runtimes=["vllm"]).runtimes["vllm"]
    assert (amd.version, amd.install) == ("0.31.0", "image")
    assert ("image", "vllm", amd.version, "rocm") in {
        ("image", entry.runtime, entry.version, entry.backend) for entry in load_catalog().images.values()
    }
    asked = solved(MI300X, runtimes=["vllm 0.33.0"]).runtimes["vllm"]
    assert (asked.version, asked.install) == ("0.33.0", "wheel")


def test_an_unknown_runtime_is_refused_with_the_known_ones():
    problem = the_problem(L40S, runtimes=["tgi"])
    assert "vllm" in problem.hint


def test_one_runtime_in_two_versions_is_refused():
    assert "0.31.0, 0.33.0" in the_problem(L40S, runtimes=["vllm 0.31.0", "vllm 0.33.0"]).message
    assert solved(L40S, runtimes=["vllm 0.31.0", "vllm 0.31.0"]).runtimes["vllm"].version == "0.31.0"


def test_runtimes_that_need_different_things_share_a_host():
    stack = solved(A100, runtimes=["vllm", "sglang", "tensorrt-llm", "llama.cpp", "ollama", "lmstudio"])
    assert set(stack.runtimes) == {"vllm", "sglang", "tensorrt-llm", "llama.cpp", "ollama", "lmstudio"}
    assert stack.cuda == "13.1"


def test_llama_cpp_is_built_with_the_cuda_that_the_card_is_in():
    assert solved(V100, runtimes=["llama.cpp"]).cuda == "12.9"
    assert solved(T4, runtimes=["llama.cpp"]).cuda == "13.0"


# AMD


def test_mi300x_takes_amdgpu_and_no_nvidia_part():
    stack = solved(MI300X, runtimes=["vllm"])
    assert (stack.driver_branch, stack.driver_source, stack.kernel_module, stack.cuda) == ("31.50", "amd", None, None)
    assert not stack.fabric_manager
    assert solved(MI300X).rocm == "10.0"


@pytest.mark.parametrize(
    ("kernel", "fits"), [("5.4.0-200-generic", False), ("5.14.0-503.el9.x86_64", True), ("6.8", True)]
)
def test_amdgpu_has_an_oldest_kernel(kernel, fits):
    result = outcome(MI300X, kernel=kernel)
    assert isinstance(result, Stack) is fits
    if not isinstance(result, Stack):
        assert "builds for Linux 5.14" in result[0].message


@pytest.mark.parametrize(("kernel", "fits"), [("6.18.3", True), ("6.19.0", False), ("7.0.0", False)])
def test_an_older_amdgpu_has_a_newest_kernel(kernel, fits):
    assert isinstance(outcome(MI300X, kernel=kernel, driver_branch="30.30"), Stack) is fits


def test_a_runtime_with_an_older_rocm_gets_an_amdgpu_that_carries_it():
    stack = solved(MI300X, runtimes=["vllm 0.16.0"])
    assert (stack.driver_branch, stack.rocm) == ("30.30", "7.0")
    assert "ROCm 7.0" in the_problem(MI300X, os="ubuntu-26.04", runtimes=["vllm 0.16.0"]).message


def test_amdgpu_is_not_packaged_for_debian():
    assert "ubuntu-24.04" in the_problem(MI300X, os="debian-13").hint


def test_a_wheel_with_rocm_in_it_stays_away_from_rocm_on_the_host():
    alone = solved(MI300X, runtimes=["vllm 0.33.0"])
    assert (alone.runtimes["vllm"].install, alone.rocm_on_host) == ("wheel", False)
    shared = solved(MI300X, runtimes=["vllm 0.33.0", "llama.cpp"])
    assert (shared.runtimes["vllm"].install, shared.rocm_on_host) == ("image", True)


def test_a_target_without_kernels_is_refused():
    old = card("mi100", "gfx908", "none", vendor="amd")
    assert "mi100 is gfx908" in the_problem(old, runtimes=["vllm 0.33.0"]).message
    assert solved(old, runtimes=["ollama"]).runtimes["ollama"].backend == "vulkan"
