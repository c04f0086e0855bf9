"""One instance on several hosts: what stands against it, told on which of them."""

from __future__ import annotations

import pytest

from tests.planning.pooling import BIG, EVERYWHERE, SMALL, only_problem, parts, planned, pool, problems, refused, spread


def test_everything_that_is_wrong_with_an_entry_is_told_at_once():
    inventory = pool(spread("h1", "h2", "h2", "gpu9", "h3"), BIG | {"name": "single", "distributed": "ray", "gpus": 1})
    inventory[2][1].update(gpu_tag="l40s", os="rocky-9", services=[SMALL | {"name": "big"}])
    del inventory[0][1]["node_address"], inventory[2][1]["node_address"]
    told = [(problem.host, problem.key, problem.message) for problem in problems(inventory)]
    expected = [
        ("h1", "nodes", "h1 is the host that it stands on"),
        ("h1", "nodes", "h2 is named twice"),
        ("h1", "nodes", "gpu9 is no host of the inventory"),
        ("h1", "nodes", "h3 has l40s, h1 has h100-sxm-80gb"),
        ("h1", "nodes", "h3 runs rocky-9, h1 runs ubuntu-24.04"),
        ("h1", "nodes", "h3 has a service of this name"),
        ("h1", "node_address", "is needed: big on h1"),
        ("h3", "node_address", "is needed: big on h1"),
        ("h1", "distributed", "has no meaning without nodes"),
    ]
    assert len(told) == len(expected), told
    for (host, key, start), found in zip(expected, told, strict=True):
        assert found[:2] == (host, key)
        assert found[2].startswith(start)


def test_an_unknown_host_is_told_with_what_was_probably_meant():
    inventory = pool(spread("gpu02.example.or"))
    inventory[1] = ("gpu02.example.org", inventory[1][1])
    assert only_problem(inventory).hint == "did you mean gpu02.example.org?"


@pytest.mark.parametrize("data", [{"gpu_simulated": True}, {"gpu_tag": "cpu", "memory_mib": 64_000, "gpu_count": 1}])
def test_a_host_that_serves_from_its_ram_is_no_part(data):
    inventory = pool(spread("h2", "h3"))
    inventory[2][1].update(data)
    told = [problem for problem in problems(inventory) if problem.host == "h3"]
    assert [problem.message for problem in told] == ["has no GPU, and big on h1 is spread over this host"]


def test_a_head_that_serves_from_its_ram_is_refused():
    inventory = pool(spread(), gpu_simulated=True)
    assert ("h1", "gpu_simulated") in {(problem.host, problem.key) for problem in problems(inventory)}


def test_addresses_of_one_instance_differ():
    inventory = pool(spread())
    inventory[1][1]["node_address"] = "10.0.0.1"
    assert only_problem(inventory).message == "two of its hosts have node_address 10.0.0.1"


@pytest.mark.parametrize("address", ["127.0.0.1", EVERYWHERE, "224.0.0.1", "fe80::1", "h2"])
def test_an_address_that_no_other_host_reaches_is_refused(address):
    inventory = pool(spread())
    inventory[1][1]["node_address"] = address
    problem = next(problem for problem in problems(inventory) if problem.key == "node_address")
    assert problem.host == "h2"


def test_instances_of_one_name_cannot_meet_on_a_host():
    inventory = pool(spread("h3"))
    inventory[1][1]["services"] = [spread("h3")]
    assert "h3 would be part of both" in only_problem(inventory).message


@pytest.mark.parametrize("runtime", ["sglang", "llama.cpp"])
def test_runtimes_that_serve_from_one_host_are_refused(runtime):
    told = [problem for problem in problems(pool(spread(runtime=runtime))) if problem.key == "nodes"]
    assert [problem.message for problem in told] == [f"{runtime} serves from one host"]


def test_too_few_free_cards_are_told_where_they_are_and_on_the_head():
    inventory = pool(spread("h2", "h3"))
    inventory[1][1]["services"] = [SMALL | {"name": "b"}]
    told = refused(inventory)
    assert told["h2"].message == "4 GPUs are needed, 3 of 4 are left"
    assert told["h1"].message == "the instance cannot be spread: h2: 4 GPUs are needed, 3 of 4 are left"
    assert told["h3"].message.startswith("the instance, whose head is h1, cannot be spread: h2: ")
    assert [service.name for service in planned(inventory)["h2"].gpu_services] == ["b"]


def test_what_does_not_fit_on_all_hosts_together_is_told_once_in_full():
    told = refused(pool(spread("h2", model="deepseek-v3", gpus=2, max_model_len=None)))
    assert "does not fit on 4 x h100-sxm-80gb" in told["h1"].message
    assert told["h2"].message.startswith("the instance, whose head is h1, cannot be spread: h1: deepseek-v3")


def test_hosts_that_would_get_different_builds_are_refused():
    inventory = pool(spread())
    inventory[1][1]["os"] = "ubuntu-22.04"
    same = parts(inventory)
    assert same["h1"].runtime == same["h2"].runtime
    inventory[1][1]["services"] = [SMALL | {"name": "b", "gpus": [0], "runtime_version": "0.23.0"}]
    inventory[0][1]["services"][0]["gpus"] = [1, 2]
    told = refused(inventory)
    assert "h2 gets vllm 0.23.0" in told["h1"].message
    assert "h1 vllm 0.33.0" in told["h2"].message
