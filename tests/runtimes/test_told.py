"""What was asked for and is not done, or in another way than one would think: told by the plan, and nothing else is."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.fleet import plan_fleet
from rackserve.planning.fit import plan_hosts
from rackserve.planning.installable import not_installable
from rackserve.planning.plans import GpuServicePlan, HostPlan
from rackserve.settings import load_hosts
from tests.planning.making import planned as in_ram
from tests.planning.pooling import parts, pool, spread
from tests.rendering.fleet import host_of

BARE: dict[str, Any] = {"max_output_tokens": None, "temperature": None, "top_p": None}


def plan_of(tag: str, runtime: str, **service: Any) -> HostPlan:
    (plan,) = plan_hosts(load_hosts([("h1", host_of(tag, runtime, **BARE | service))]), load_catalog())
    assert not plan.errors, plan.errors
    return plan


def service_of(tag: str, runtime: str, **service: Any) -> GpuServicePlan:
    return plan_of(tag, runtime, **service).gpu_services[0]


def told(runtime: str, **service: Any) -> str:
    return " ".join(service_of("l40s", runtime, **service).launch.warnings)


@pytest.mark.parametrize("setting", [{"temperature": 0.7}, {"top_p": 0.9}, {"repetition_penalty": 1.2}])
@pytest.mark.parametrize("runtime", ["sglang", "lmstudio", "tensorrt-llm"])
def test_sampling_that_requests_have_to_state_is_told_where_it_was_asked_for(runtime, setting):
    (key,) = setting
    assert key in told(runtime, **setting)
    assert key not in told(runtime)


@pytest.mark.parametrize("runtime", ["sglang", "lmstudio", "tensorrt-llm"])
def test_a_limit_of_output_that_the_runtime_has_not_is_told(runtime):
    assert "max_output_tokens" in told(runtime, max_output_tokens=100)
    assert "max_output_tokens" not in told(runtime)


def test_vllm_is_told_everything_and_says_nothing_of_it():
    assert told("vllm", max_output_tokens=100, temperature=0.7, top_p=0.9, repetition_penalty=1.2) == ""


def test_an_unknown_version_is_warned_of_without_the_advice_to_allow_what_is_allowed():
    host = host_of("l40s", "vllm") | {"catalog": [], "allow_unknown_versions": True}
    catalog = load_catalog()
    table = catalog.options["vllm"].model_copy(update={"newest": "0.20.0"})
    catalog = catalog.model_copy(update={"options": dict(catalog.options) | {"vllm": table}})
    (plan,) = plan_hosts(load_hosts([("h1", host)]), catalog)
    (problem,) = [each for each in plan.gpu_services[0].launch.warnings if "option table" in each]
    assert "allow_unknown_versions" not in problem
    assert not [each for each in not_installable(plan, catalog) if each.key == "runtime_version"]
    (strict,) = plan_hosts(load_hosts([("h1", host | {"allow_unknown_versions": False})]), catalog)
    (refused,) = not_installable(strict, catalog)
    assert (refused.message, refused.hint) == (problem, "set allow_unknown_versions, or take one of 0.8.5 to 0.20.0")


# llama.cpp and what is built on it


@pytest.mark.parametrize(
    ("setting", "option", "value"),
    [
        ({"max_output_tokens": 1_234_567}, "--predict", "1234567"),
        ({"temperature": 0.7}, "--temp", "0.7"),
        ({"threads": 12}, "--threads", "12"),
        ({}, "--repeat-penalty", "1.05"),
    ],
)
def test_numbers_are_said_as_they_were_stated(setting, option, value):
    assert dict(pairwise(in_ram(8192, **setting).launch.argv))[option] == value


def test_the_unit_names_no_version_of_llama_cpp_that_may_be_another():
    assert service_of("l40s", "llama.cpp").launch.title.endswith("on llama.cpp")


def test_ollama_computes_with_as_many_threads_as_were_asked_for():
    (text,) = [text for _, text in service_of("l40s", "ollama", threads=6).launch.files if '"num_ctx"' in text]
    assert '"num_thread": 6' in text


def test_everybody_reaches_a_mac_whatever_allow_from_says():
    service = service_of("apple-m4-max", "llama.cpp", listen="10.0.0.5", allow_from=[])
    assert [each for each in service.warnings if "10.0.0.5" in each] == [
        "listens on 10.0.0.5 without TLS: the API key crosses the network in clear"
    ]


# cards and hosts


def test_a_part_of_an_instance_has_every_card_of_its_host_or_part_of_them():
    # This version counts the cards of the whole host, so its unit may open the others too.
    launches = {
        gpus: parts(pool(spread(gpus=gpus, runtime_version="0.19.1"), gpu_count=8))["h1"].launch for gpus in (4, 8)
    }
    assert (launches[4].neighbours, launches[8].neighbours) == (True, False)


def test_ray_that_is_not_among_the_pinned_packages_is_refused_before_anything_is_installed():
    refused = {
        way: [problem.message for problem in not_installable(head, load_catalog()) if problem.key == "distributed"]
        for way in ("ray", "native")
        for head in plan_fleet(pool(spread(distributed=way)))[:1]
    }
    assert refused == {"ray": ["the pinned requirements of vllm 0.33.0 hold no Ray"], "native": []}
