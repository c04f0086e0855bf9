"""One instance on several hosts: who takes part, with which cards and ports, in whichever part of the inventory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackserve.domain.errors import InputError
from rackserve.planning.multi_node import taken_apart
from rackserve.planning.parallel import Parallel, decide
from tests.examples import examples
from tests.planning.making import shape
from tests.planning.pooling import BIG, EVERYWHERE, SMALL, parts, planned, pool, refused, spread

# What is planned


def test_one_entry_becomes_a_part_on_every_host_with_one_sizing():
    found = parts(pool(spread("h3", "h2")))
    assert {host: part.member.rank for host, part in found.items()} == {"h1": 0, "h3": 1, "h2": 2}
    assert {part.member.hosts for part in found.values()} == {("h1", "h3", "h2")}
    assert len({part.sizing for part in found.values()}) == 1
    parallel = found["h1"].sizing.parallel
    assert (parallel.tensor, parallel.pipeline, parallel.replicas) == (4, 3, 1)
    assert not [part for part in found.values() if any("has to be started" in text for text in part.warnings)]


def test_only_the_head_answers(tmp_path):
    key = tmp_path / "key"
    key.write_text("sk-0123456789\n")
    found = parts(pool(spread(listen=EVERYWHERE, allow_from=["10.1.0.0/16"], api_key_file=str(key))))
    assert {host: part.answers for host, part in found.items()} == {"h1": True, "h2": False}
    assert found["h2"].service.allow_from == ()
    assert found["h2"].service.api_key_file is None
    told = {host: part.as_dict() for host, part in found.items()}
    assert (told["h1"]["listen"], told["h1"]["port"]) == (EVERYWHERE, 8001)
    assert (told["h2"]["listen"], told["h2"]["port"]) == (None, None)
    assert told["h2"]["member"]["hosts"] == ["h1", "h2"]
    assert told["h2"]["member"]["rank"] == 1


def test_a_service_on_one_host_has_no_member():
    assert parts(pool(BIG))["h1"].as_dict()["member"] is None


def test_a_part_leaves_the_cards_of_the_hosts_own_services_alone():
    inventory = pool(spread(gpus=2), SMALL | {"name": "a"})
    inventory[1][1]["services"] = [SMALL | {"name": "b", "port": 8001}, SMALL | {"name": "c", "gpus": [2]}]
    plans = planned(inventory)
    cards = {host: {service.name: service.gpus for service in plan.gpu_services} for host, plan in plans.items()}
    assert cards["h1"] == {"big": (0, 1), "a": (2,)}
    assert cards["h2"] == {"b": (0,), "c": (2,), "big": (1, 3)}
    assert plans["h2"].gpu_services[-1].member.cards == ((0, 1), (1, 3))
    assert {service.name: service.port for service in plans["h2"].gpu_services}["b"] == 8001


def test_cards_that_are_shared_somewhere_are_used_everywhere_as_far_as_there():
    alone = parts(pool(spread(gpus=[0, 1], gpu_share=None)))
    inventory = pool(spread(gpus=[0, 1]))
    inventory[1][1]["services"] = [SMALL | {"name": "b", "gpus": [0]}]
    shared = parts(inventory)
    assert alone["h1"].sizing.utilization == 0.85
    assert {part.sizing.utilization for part in shared.values()} == {0.425}


def test_the_lowest_ceiling_holds_for_all():
    inventory = pool(spread())
    inventory[1][1]["memory_ceiling"] = 0.7
    assert {part.sizing.utilization for part in parts(inventory).values()} == {0.7}


def test_a_host_can_be_head_of_one_instance_and_part_of_another():
    inventory = pool(spread(gpus=2))
    inventory[1][1]["services"] = [spread("h1", name="other", gpus=2)]
    plans = planned(inventory)
    ranks = {host: {part.name: part.member.rank for part in plan.gpu_services} for host, plan in plans.items()}
    assert ranks == {"h1": {"big": 0, "other": 1}, "h2": {"other": 0, "big": 1}, "h3": {}}


def test_instances_that_meet_on_a_host_meet_at_ports_of_their_own():
    services = [spread("h2", gpus=2), spread("h2", name="other", gpus=2)]
    plans = planned(pool(*services))
    assert {part.name: part.member.port for part in plans["h1"].gpu_services} == {"big": 29501, "other": 29502}
    with_ray = planned(pool(*(service | {"distributed": "ray"} for service in services)))
    assert {part.name: part.member.port for part in with_ray["h2"].gpu_services} == {"big": 20000, "other": 20200}


def test_a_port_that_a_service_states_is_not_the_meeting_point():
    inventory = pool(spread())
    inventory[1][1]["services"] = [SMALL | {"name": "b", "port": 29501, "gpus": [0]}]
    inventory[0][1]["services"][0]["gpus"] = [1, 2]
    assert parts(inventory)["h1"].member.port == 29502


def test_the_split_asked_for_reaches_over_all_hosts():
    found = parts(pool(spread(tensor_parallel=2)))["h1"].sizing.parallel
    assert (found.tensor, found.pipeline, found.replicas) == (2, 4, 1)


def test_a_split_that_leaves_cards_idle_is_refused_on_every_host():
    told = refused(pool(spread(tensor_parallel=2, pipeline_parallel=2)))
    assert set(told) == {"h1", "h2"}
    assert told["h1"].key == "tensor_parallel"
    assert "are not all 8 GPUs" in told["h1"].message


@pytest.mark.parametrize(("host_gpus", "tensor", "pipeline"), [(4, 4, 3), (6, 2, 6), (3, 1, 12), (12, 4, 3)])
def test_tensor_parallel_groups_never_reach_into_the_next_host(host_gpus, tensor, pipeline):
    # 8 heads: 6 cards a host could hold groups of 4 only if one of them lay on two hosts.
    eight = shape(kv_heads=8, vocab_size=1024, layers=12)
    found = decide(eight, 12, None, None, host_gpus)
    assert isinstance(found, Parallel)
    assert (found.tensor, found.pipeline) == (tensor, pipeline)


def test_revisions_that_hosts_could_differ_in_are_told_of_on_the_head():
    found = parts(pool(spread()))
    assert [host for host, part in found.items() if "different commits" in " ".join(part.warnings)] == ["h1"]
    pinned = parts(pool(spread(revision="a" * 40)))
    assert not [host for host, part in pinned.items() if "different commits" in " ".join(part.warnings)]


# Which way


@pytest.mark.parametrize(
    ("version", "asked", "way"),
    [(None, None, "native"), ("0.10.2", None, "ray"), (None, "ray", "ray"), (None, "native", "native")],
)
def test_vllms_own_way_is_taken_where_the_version_has_it(version, asked, way):
    settings = {key: value for key, value in (("runtime_version", version), ("distributed", asked)) if value}
    assert {part.member.distributed for part in parts(pool(spread(**settings))).values()} == {way}


def test_a_version_without_a_way_of_its_own_is_refused_where_it_is_asked_for():
    told = refused(pool(spread(runtime_version="0.10.2", distributed="native")))
    assert told["h1"].key == "distributed"
    assert "vllm 0.10.2 has no way of its own" in told["h1"].message


def test_a_container_is_refused():
    told = refused(pool(spread(), gpu_tag="mi300x", os="ubuntu-24.04"))
    assert "comes as a container" in told["h1"].message


# A part of the inventory


def test_a_run_limited_to_one_host_plans_with_the_others():
    inventory = pool(spread(), count=3)
    whole = planned(inventory)
    for name in ("h1", "h2"):
        limited = planned(inventory, [name])
        assert limited == {name: whole[name]}
    assert planned(inventory, ["h3"])["h3"].gpu_services == ()


def test_what_is_wrong_with_hosts_that_have_no_part_is_not_told_in_a_limited_run():
    inventory = [*pool(spread(), count=2), ("h9", {"gpu_tag": "nonsense", "services": 3})]
    assert set(planned(inventory, ["h2"])) == {"h2"}
    with pytest.raises(InputError):
        planned(inventory)


def test_what_is_wrong_with_another_host_of_the_instance_is_told_in_a_limited_run():
    inventory = pool(spread())
    inventory[1][1]["gpu_count"] = 0
    with pytest.raises(InputError) as caught:
        planned(inventory, ["h1"])
    assert {problem.host for problem in caught.value.problems} == {"h2"}


def test_a_refusal_is_seen_by_a_run_limited_to_any_of_its_hosts():
    inventory = pool(spread("h2", "h3"))
    inventory[1][1]["services"] = [SMALL | {"name": "b"}]
    for name in ("h1", "h2", "h3"):
        assert [problem.service for problem in planned(inventory, [name])[name].errors] == ["big"]


def test_a_run_may_not_take_an_instance_apart():
    inventory = pool(spread("h2", "h3"), count=4)
    told = list(taken_apart(planned(inventory, ["h2", "h4"])))
    assert [(problem.host, problem.service, problem.hint) for problem in told] == [("h2", "big", "add them to --limit")]
    assert told[0].message == "is spread over h1, h3 too, which this run leaves out"
    assert list(taken_apart(planned(inventory))) == []


@examples(25)
@given(st.integers(2, 12).flatmap(lambda size: st.permutations(range(1, size + 1))))
def test_no_address_is_lost_or_added(order):
    inventory = pool(count=len(order), gpu_count=1)
    head, *nodes = (f"h{number}" for number in order)
    dict(inventory)[head]["services"] = [SMALL | {"name": "big", "nodes": nodes, "gpus": 1}]
    found = parts(inventory)
    everybody = {f"10.0.0.{number}" for number in order}
    for host, part in found.items():
        own = f"10.0.0.{host.removeprefix('h')}"
        assert part.member.address == own
        assert sorted(part.member.peers) == sorted(everybody - {own})
        assert part.member.head_address == f"10.0.0.{order[0]}"
    assert sorted(part.member.rank for part in found.values()) == list(range(len(order)))
