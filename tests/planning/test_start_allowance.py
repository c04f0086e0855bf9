"""How long a start may take: reading weights, preparing them, and what a version compiles the first time."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.planning.engine_facts import compiler_for
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import GpuServicePlan
from rackserve.rendering.units import drop_in, probe_file
from rackserve.settings import load_hosts

SMALL = {"name": "chat", "model": "qwen3-0.6b", "max_model_len": 4096}


def planned(tag: str, runtime: str, service: dict[str, Any] | None = None, **host: Any) -> GpuServicePlan:
    data = {"gpu_tag": tag, "services": [{**SMALL, "runtime": runtime, **(service or {})}], **host}
    (plan,) = plan_hosts(load_hosts([("h1", data)]), load_catalog())
    assert not plan.errors
    (made,) = plan.gpu_services
    return made


def first_compile(plan: GpuServicePlan) -> int:
    compiler = compiler_for(load_catalog(), plan.runtime_name, plan.runtime.version, plan.runtime.backend)
    return compiler.first_start_s if compiler else 0


@pytest.mark.parametrize(("tag", "runtime"), [("h100-pcie", "vllm"), ("h200", "sglang"), ("v100-32gb-sxm", "vllm")])
def test_the_first_compilation_is_part_of_it_and_said(tag, runtime):
    plan = planned(tag, runtime, start_timeout=10)
    seconds = first_compile(plan)
    assert seconds > 0
    reading = plan.start_timeout - 600 - seconds
    # 200 MB/s, three times over.
    assert reading == pytest.approx(plan.sizing.weights_bytes * 3 / 200e6, abs=1)
    assert plan.reasons[-1] == (
        f"a start may take {plan.start_timeout} s: {reading} s to read the weights, 600 s to prepare them, "
        f"{seconds} s to compile kernels, the first time"
    )
    assert plan.as_dict()["reasons"][-1] == plan.reasons[-1]


def test_whoever_waits_for_it_is_told():
    plan = planned("h100-pcie", "vllm", start_timeout=10)
    assert f"TimeoutStartSec={plan.start_timeout + 30}\n" in drop_in(plan).text
    assert f"VLLM_ENGINE_READY_TIMEOUT_S={plan.start_timeout}\n" in drop_in(plan).text
    assert f'"start_s": {plan.start_timeout},' in probe_file(plan).text


def test_what_comes_compiled_has_none_to_add():
    plan = planned("mi300x", "vllm", start_timeout=10)
    assert first_compile(plan) == 0
    assert "compile" not in plan.reasons[-1]


def test_what_the_host_states_is_the_least():
    plan = planned("h100-pcie", "vllm", start_timeout=5000)
    assert (plan.start_timeout, plan.reasons[-1]) == (5000, "a start may take 5000 s: start_timeout")


def test_two_hours_are_the_most():
    huge = {"model": "deepseek-v3", "gpus": 8}
    plan = planned("h200", "vllm", huge, gpu_count=8)
    assert plan.start_timeout == 7200
    assert plan.reasons[-1].startswith("a start may take 7200 s, the most: ")
