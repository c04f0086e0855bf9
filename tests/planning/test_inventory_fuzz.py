"""Whatever an inventory holds: plans, or every problem with its host, and never an exception of another kind."""

from __future__ import annotations

from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError, Problem
from rackserve.domain.service import Service
from rackserve.fleet import plan_fleet
from rackserve.planning.plans import HostPlan
from rackserve.settings import KNOWN_KEYS
from tests.examples import examples

GOOD_HOST: dict[str, Any] = {"gpu_tag": "h100-sxm-80gb", "gpu_count": 4, "os": "ubuntu-24.04", "memory_mib": 64_000}
GOOD_SERVICE: dict[str, Any] = {"name": "chat", "model": "qwen3-8b", "max_model_len": 8192}
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
host_key = st.sampled_from(sorted(KNOWN_KEYS - {"services", "catalog"}))
service_key = st.sampled_from(sorted(set(Service.model_fields) - {"name", "api_key_file"}))
CATALOG = load_catalog()
# Each value is right by itself; which of them go together is for planning to say.
host_values = st.fixed_dictionaries(
    {"gpu_tag": st.sampled_from(sorted(CATALOG.gpus))},
    optional={
        "gpu_count": st.integers(1, 8),
        "os": st.sampled_from(sorted(CATALOG.stacks.systems)),
        "memory_mib": st.integers(1_000, 500_000),
        "memory_ceiling": st.sampled_from([0.1, 0.85, 0.95]),
        "driver_branch": st.sampled_from(["570", "580", "595"]),
        "kernel_module": st.sampled_from(["open", "proprietary"]),
        "gpu_simulated": st.booleans(),
    },
)
service_values = st.fixed_dictionaries(
    {"model": st.sampled_from(sorted(CATALOG.models))},
    optional={
        "runtime": st.sampled_from(["vllm", "sglang", "tensorrt-llm", "llama.cpp", "ollama", "lmstudio"]),
        "quantization": st.sampled_from(["none", "fp8", "awq", "gptq", "Q4_K_M", "Q8_0"]),
        "kv_cache_dtype": st.sampled_from(["auto", "fp8", "f16", "q8_0"]),
        "max_model_len": st.sampled_from([256, 4096, 32768, 1_000_000]),
        "concurrency": st.integers(1, 300),
        "avg_tokens": st.integers(1, 5000),
        "gpus": st.sampled_from([1, 2, 3, 8, [0], [0, 1], [9]]),
        "gpu_share": st.sampled_from([0.2, 0.9]),
        "tensor_parallel": st.sampled_from([1, 2, 3]),
        "shared_prompts": st.booleans(),
    },
)


def answer(hosts: list[tuple[str, dict[str, Any]]]) -> None:
    told: tuple[Problem, ...] = ()
    plans: tuple[HostPlan, ...] = ()
    try:
        plans = plan_fleet(hosts)
    except InputError as error:
        told = error.problems
    event("plans" if plans else "problems")
    assert bool(told) != bool(plans)
    assert all(problem.message and problem.host for problem in told)
    for plan in plans:
        assert all(problem.host == plan.host.name for problem in plan.errors)
        named = {service.name for service in (*plan.services, *plan.gpu_services)}
        assert named <= {service.name for service in plan.host.services}


@examples(300)
@given(host_key, service_key, anything, anything)
def test_one_wrong_value_of_a_host_and_of_a_service(of_host, of_service, host_value, service_value):
    services = [GOOD_SERVICE | {of_service: service_value}, GOOD_SERVICE | {"name": "other"}]
    answer([("h1", GOOD_HOST | {"services": services, of_host: host_value}), ("h2", GOOD_HOST)])


@examples(400)
@given(host_values, st.lists(service_values, max_size=3))
def test_any_service_on_any_host(host, services):
    answer([("h1", host | {"services": [wish | {"name": f"s{index}"} for index, wish in enumerate(services)]})])


@examples(100)
@given(anything)
def test_services_that_are_no_list_of_services(services):
    answer([("h1", GOOD_HOST | {"services": services})])
