"""Services on the GPUs of one host: who gets which card, and how much of it."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import HostPlan
from rackserve.settings import load_hosts

SMALL = {"model": "qwen3-8b", "max_model_len": 8192}


def planned(services: list[dict[str, Any]], **data: Any) -> HostPlan:
    host = {"gpu_tag": "h100-sxm-80gb", "gpu_count": 4, "os": "ubuntu-24.04", "services": services} | data
    return plan_hosts(load_hosts([("h1", host)]), load_catalog())[0]


def test_each_service_gets_gpus_of_its_own_in_the_inventorys_order():
    plan = planned([SMALL | {"name": "a"}, SMALL | {"name": "b", "gpus": 2}])
    assert [(service.name, service.gpus) for service in plan.gpu_services] == [("a", (0,)), ("b", (1, 2))]
    assert [service.port for service in plan.gpu_services] == [8001, 8002]
    assert not plan.errors


def test_named_gpus_are_not_given_to_others():
    plan = planned([SMALL | {"name": "a", "gpus": 2}, SMALL | {"name": "b", "gpus": [0, 1]}])
    assert {service.name: service.gpus for service in plan.gpu_services} == {"a": (2, 3), "b": (0, 1)}


def test_more_gpus_than_there_are_is_told_with_the_way_to_share():
    (problem,) = planned([SMALL | {"name": "a", "gpus": 4}, SMALL | {"name": "b"}]).errors
    assert (problem.service, problem.key) == ("b", "gpus")
    assert "1 GPUs are needed, 0 of 4 are left" in problem.message
    assert "gpus = [0]" in problem.hint


def test_a_gpu_number_that_is_not_there_is_told():
    (problem,) = planned([SMALL | {"name": "a", "gpus": [1, 4]}]).errors
    assert "4 is not there: gpu_count is 4" in problem.message


def test_services_that_share_a_gpu_share_its_ceiling():
    plan = planned([SMALL | {"name": "a", "gpus": [0]}, SMALL | {"name": "b", "gpus": [0]}])
    shares = [service.sizing.utilization for service in plan.gpu_services]
    assert shares == [0.425, 0.425]
    used = sum(service.sizing.used_bytes for service in plan.gpu_services)
    assert used <= 0.86 * plan.gpu_services[0].sizing.stage.total


def test_a_stated_share_leaves_the_rest_to_the_others():
    plan = planned([SMALL | {"name": "a", "gpus": [0], "gpu_share": 0.6}, SMALL | {"name": "b", "gpus": [0]}])
    assert [round(service.sizing.utilization, 3) for service in plan.gpu_services] == [0.6, 0.25]


def test_shares_beyond_the_ceiling_are_refused_together():
    plan = planned([SMALL | {"name": name, "gpus": [2], "gpu_share": 0.5} for name in ("a", "b")])
    assert [problem.key for problem in plan.errors] == ["gpu_share"]
    assert "GPU 2" in plan.errors[0].message
    assert not plan.gpu_services


def test_a_refusal_says_what_is_short_and_offers_what_fits():
    (problem,) = planned([{"name": "a", "model": "llama-3.3-70b-instruct", "max_model_len": 131072}]).errors
    assert "GiB short" in problem.message
    assert "would fit: " in problem.hint
    assert "2 x h100-sxm-80gb" in problem.hint or "4 x h100-sxm-80gb" in problem.hint


def test_one_service_that_does_not_fit_keeps_the_others():
    plan = planned([{"name": "big", "model": "deepseek-v3"}, SMALL | {"name": "small"}])
    assert [service.name for service in plan.gpu_services] == ["small"]
    assert [problem.service for problem in plan.errors] == ["big"]


def test_a_stack_that_conflicts_is_refused_before_anything_is_sized():
    plan = planned([SMALL | {"name": "a"}], driver_branch="570", allow_eol=False)
    assert plan.errors
    assert not plan.gpu_services


def test_the_runtime_is_vllm_where_it_runs_and_llama_cpp_elsewhere():
    assert planned([SMALL | {"name": "a"}]).gpu_services[0].sizing.request.runtime == "vllm"
    arc = planned([SMALL | {"name": "a"}], gpu_tag="arc-b580", gpu_count=1, os="ubuntu-26.04")
    assert arc.gpu_services[0].sizing.request.runtime == "llama.cpp"


def test_apples_gpus_have_their_share_of_the_stated_memory():
    mac = {"gpu_tag": "apple-m4-max", "gpu_count": 1, "os": "macos-15", "memory_mib": 65536}
    plan = planned([SMALL | {"name": "a"}], **mac)
    assert plan.gpu_services[0].sizing.stage.total == 65536 * 0.75 * 1024**2


@pytest.mark.parametrize("tag", ["rtx-4090", "mi300x", "b200", "l40s"])
def test_the_plans_json_carries_stack_and_reasons(tag):
    plan = planned([SMALL | {"name": "a"}], gpu_tag=tag, gpu_count=1)
    assert not plan.errors
    answer = plan.gpu_services[0].as_dict()
    assert answer["gpus"] == [0]
    assert answer["reasons"]
    assert plan.stack is not None
    assert plan.stack.runtimes["vllm"].version == answer["runtime_version"]
