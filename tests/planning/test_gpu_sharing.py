"""What services on one host have to share: GPUs whose memory can be divided, and the RAM that layers are left in."""

from __future__ import annotations

import re
from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.planning.fit import plan_hosts
from rackserve.planning.gpu_fit import assign, request_for
from rackserve.planning.plans import HostPlan
from rackserve.settings import load_hosts

SMALL = {"model": "qwen3-8b", "max_model_len": 8192}
LARGE = {"model": "qwen3-32b", "runtime": "llama.cpp", "quantization": "Q4_K_M", "max_model_len": 4096}


def planned(services: list[dict[str, Any]], **data: Any) -> HostPlan:
    host = {"gpu_tag": "h100-sxm-80gb", "gpu_count": 4, "os": "ubuntu-24.04", "services": services} | data
    return plan_hosts(load_hosts([("h1", host)]), load_catalog())[0]


@pytest.mark.parametrize("runtime", ["sglang", "tensorrt-llm"])
@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_a_share_of_what_is_free_cannot_be_planned_beside_a_neighbour(runtime, order):
    services = {
        "a": SMALL | {"name": "a", "gpus": [0], "runtime": runtime},
        "b": SMALL | {"name": "b", "gpus": [0, 1], "gpu_share": 0.3},
    }
    plan = planned([services[name] for name in order])
    (problem,) = plan.errors
    assert (problem.host, problem.service, problem.key) == ("h1", "a", "gpus")
    assert f"{runtime} takes a share of the memory that is free when it starts" in problem.message
    assert problem.hint == "give it GPUs of its own, or serve it with vllm, whose share is of the whole card"
    assert [service.name for service in plan.gpu_services] == ["b"]
    assert plan.gpu_services[0].sizing.utilization == 0.3


def test_two_that_take_a_share_of_what_is_free_are_both_refused():
    plan = planned([SMALL | {"name": name, "gpus": [0], "runtime": "sglang"} for name in ("a", "b")])
    assert [(problem.service, problem.key) for problem in plan.errors] == [("a", "gpus"), ("b", "gpus")]


@pytest.mark.parametrize("runtime", ["sglang", "tensorrt-llm"])
def test_on_gpus_of_its_own_it_is_planned(runtime):
    assert not planned([SMALL | {"name": "a", "gpus": [0], "runtime": runtime}, SMALL | {"name": "b"}]).errors


def test_layers_of_all_services_have_to_fit_into_the_ram_together():
    host = {"gpu_tag": "rtx-3060-12gb", "gpu_count": 2}
    (alone,) = planned([LARGE | {"name": "a"}], **host, memory_mib=64_000).gpu_services
    assert alone.sizing.offload is not None
    need = alone.sizing.offload.host_bytes / 1024**2
    both = [LARGE | {"name": "a"}, LARGE | {"name": "b"}]
    tight = planned(both, **host, memory_mib=int(need * 1.5 / 0.85))
    assert [service.name for service in tight.gpu_services] == ["a"]
    (problem,) = tight.errors
    assert problem.service == "b"
    assert "other services' layers leave" in problem.message
    offered = int(re.search(r"memory_mib (\d+):", problem.hint)[1])
    assert not planned(both, **host, memory_mib=offered).errors
    assert not planned(both, **host, memory_mib=int(need * 2 / 0.85) + 3).errors


def test_more_layers_than_all_ram_holds_leave_none():
    host = {"gpu_tag": "rtx-3060-12gb", "gpu_count": 3}
    (alone,) = planned([LARGE | {"name": "a"}], **host, memory_mib=64_000).gpu_services
    assert alone.sizing.offload is not None
    memory = int(alone.sizing.offload.host_bytes / 1024**2 / 0.85) + 2
    plan = planned([LARGE | {"name": name} for name in ("a", "b", "c")], **host, memory_mib=memory)
    assert [problem.service for problem in plan.errors] == ["b", "c"]


def test_the_share_of_ram_is_the_hosts_and_tensor_parallelism_stays_in_it():
    host = {"gpu_tag": "l40s", "gpu_count": 2, "memory_ceiling": 0.6, "memory_mib": 64_000, "os": "ubuntu-24.04"}
    (host_noun,) = load_hosts([("h1", host | {"services": [SMALL | {"name": "a", "gpu_share": 0.3}]})])
    catalog = load_catalog()
    (plan,) = plan_hosts((host_noun,), catalog)
    assert plan.stack is not None
    assert assign(host_noun)[0] == {"a": (0,)}
    request = request_for(
        host_noun, plan.gpu, host_noun.services[0], stack=plan.stack, catalog=catalog, gpus=1, ceiling=0.3
    )
    assert (request.ceiling, request.host_ceiling, request.host_gpus) == (0.3, 0.6, 2)


@pytest.mark.parametrize(
    ("service", "key", "told"),
    [
        ({"max_model_len": 10_000_000}, "max_model_len", "10000000 is asked for"),
        ({"max_model_len": None, "avg_tokens": 9_000_000}, "avg_tokens", "9000000 is more than"),
        ({"quantization": "q17"}, "quantization", "q17 is not known (known: "),
        ({"kv_cache_dtype": "q17"}, "kv_cache_dtype", "q17 is not known"),
        ({"gpus": 3, "tensor_parallel": 3}, "tensor_parallel", "3 does not divide"),
        ({"gpus": 3, "pipeline_parallel": 2}, "pipeline_parallel", "2 does not divide 3 GPUs (leave it out)"),
        ({"runtime": "llama.cpp", "concurrency": 300}, "concurrency", "300: llama.cpp has at most"),
        ({"runtime": "llama.cpp", "quantization": "Q17"}, "quantization", "qwen3-8b has no Q17 (it has "),
    ],
)
def test_what_cannot_be_asked_for_is_told_with_its_key(service, key, told):
    (problem,) = planned([SMALL | {"name": "a"} | service]).errors
    assert (problem.host, problem.service, problem.key) == ("h1", "a", key)
    assert str(problem).startswith(f"host h1: service a: {key}: {told}")
