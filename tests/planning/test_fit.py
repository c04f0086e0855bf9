"""Decisions: what fits, what does not, and what is said about it."""

from __future__ import annotations

import re

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError
from rackserve.planning.fit import plan_hosts
from rackserve.planning.installable import not_installable
from rackserve.settings import load_hosts
from tests.planning.making import SMALL, architecture, catalog_of, cpu_host, gguf, model, plan, planned, refused

MIB = 1024**2
# 128 KiB of KV cache per token, and next to nothing else.
WIDE = model("wide", architecture(layers=32, kv_heads=8, key_length=128, value_length=128), gguf("X", MIB))


@pytest.mark.parametrize(
    ("name", "length"),
    [
        # 80 % of 8192, 32768, 40960 and 131072, down to a multiple of 256
        (SMALL, 6400),
        ("qwen2.5-0.5b-instruct", 26112),
        ("qwen3-0.6b", 32768),
        ("llama-3.1-8b-instruct", 104704),
    ],
)
def test_max_model_len_is_80_percent_of_the_nominal_context_where_memory_allows(name, length):
    chosen = planned(200_000, model=name)
    assert chosen.max_model_len == length
    assert "80%" in " ".join(chosen.reasons)


def test_max_model_len_is_what_fits_where_memory_does_not_allow_more():
    # Budget 340: weights 101, process 64, compute 16 at 256 tokens; a slot pair costs 11.25 MiB per 256 tokens.
    chosen = planned(400)
    assert chosen.max_model_len < 6400
    assert chosen.max_model_len % 256 == 0
    assert chosen.footprint.total_mib <= 340
    assert "longest that fits" in " ".join(chosen.reasons)


def test_the_longest_that_fits_is_the_longest():
    chosen = planned(400)
    assert refused(400, max_model_len=chosen.max_model_len + 256)
    assert planned(400, max_model_len=chosen.max_model_len)


def test_a_stated_length_is_kept_in_the_servers_steps():
    assert planned(4096, max_model_len=512).max_model_len == 512
    assert planned(4096, max_model_len=513).max_model_len == 768


def test_the_full_context_can_be_asked_for_and_is_warned_about():
    chosen = planned(4096, max_model_len=8192)
    assert chosen.max_model_len == 8192
    assert "80%" in " ".join(chosen.warnings)
    assert not planned(4096, max_model_len=4096).warnings


def test_more_than_the_models_context_is_refused_with_both_numbers():
    problem = refused(4096, max_model_len=9000)
    assert (problem.key, problem.service) == ("max_model_len", "a")
    assert "8192" in problem.message


def test_a_context_that_is_no_multiple_of_the_servers_step_can_be_asked_for_in_full():
    odd = model("odd", architecture(context_length=5000), gguf("X", MIB))
    chosen = planned(4096, catalog_of(odd), model="odd", max_model_len=5000)
    assert 5000 <= chosen.max_model_len <= 5120


def test_ten_requests_of_half_the_window_need_ten_slots_of_kv_cache():
    # 1.2 x 10 x 1024 = 12288 = 6 x 2048: fewer cells would do, but ten requests at once need ten slots.
    chosen = planned(8192, max_model_len=2048, concurrency=10)
    assert (chosen.slots, chosen.context_size) == (10, 20480)


def test_an_average_that_leaves_no_headroom_in_the_window_is_refused():
    service = {"name": "a", "model": SMALL, "max_model_len": 2048, "avg_tokens": 1800}
    with pytest.raises(InputError, match=r"avg_tokens: 1800 x 1\.2 is more than max_model_len 2048"):
        cpu_host(8192, [service])


def test_an_open_length_leaves_the_average_its_headroom():
    # 80 % of 8192 is 6400 in steps of 256, 1.2 x 6000 is 7200.
    chosen = planned(8192, avg_tokens=6000)
    assert chosen.max_model_len == 7424
    assert any("1.2 x avg_tokens 6000" in reason for reason in chosen.reasons)


@pytest.mark.parametrize(("average", "memory_mib"), [(7000, 3000), (2100, 505)])
def test_an_average_request_is_never_longer_than_the_longest_one(average, memory_mib):
    # 505: room for one slot of 2560 tokens, and for ten slots of 256, which no request of 2100 tokens fits into.
    result = plan(
        cpu_host(memory_mib, [{"name": "a", "model": "wide", "avg_tokens": average, "concurrency": 1}]),
        catalog_of(WIDE),
    )
    assert result.errors or result.services[0].max_model_len >= average


def test_a_shorter_length_that_is_offered_still_holds_the_average_request():
    problem = refused(505, catalog_of(WIDE), model="wide", max_model_len=4096, avg_tokens=2100, concurrency=1)
    (offered,) = re.findall(r"max_model_len (\d+)", problem.hint)
    assert int(offered) >= 2100


def test_a_shorter_length_never_needs_more_memory():
    longer = planned(8192, max_model_len=1536, concurrency=8)
    shorter = planned(8192, max_model_len=1280, concurrency=8)
    assert shorter.footprint.total_mib <= longer.footprint.total_mib


def test_more_memory_does_not_turn_a_plan_of_two_open_services_into_a_refusal():
    # 64 slots of the first grow in steps of 2 GiB: with more memory it takes the next step, and the second starves.
    services = [
        {"name": "wide", "model": "wide", "concurrency": 64},
        {"name": "heavy", "model": "heavy", "concurrency": 1},
    ]
    heavy = model("heavy", architecture(), gguf("X", 5000 * MIB))
    answers = [
        not plan(cpu_host(memory_mib, services), catalog_of(WIDE, heavy)).errors
        for memory_mib in range(8_000, 14_000, 100)
    ]
    assert answers == sorted(answers)
    assert answers[-1]


def test_a_refusal_tells_need_budget_and_what_is_missing():
    problem = refused(400, max_model_len=4096)
    # Budget 85 % of 400; weights 101 + 8192 cells 180 + compute 20 + process 64 = 365.
    assert (problem.host, problem.service) == ("h1", "a")
    for number in ("365 MiB", "340 MiB", "85% of 400 MiB", "25 MiB short", "4096 tokens x 2 slots"):
        assert number in problem.message
    assert "would fit" in problem.hint


def test_a_model_that_fits_nowhere_on_the_host_is_refused_without_false_hope():
    problem = refused(4096, model="qwen3-8b")
    assert "nothing smaller" in problem.hint


def test_what_one_service_takes_the_other_cannot_have():
    services = [{"name": name, "model": SMALL, "max_model_len": 6400} for name in ("a", "b")]
    need = planned(4096, max_model_len=6400).footprint.total_mib
    room = int(need * 2 / 0.85) + 2
    assert not plan(cpu_host(room, services)).errors
    tight = plan(cpu_host(room - 10, services))
    assert [service.name for service in tight.services] == ["a"]
    assert [problem.service for problem in tight.errors] == ["b"]


@pytest.mark.parametrize("order", [("big", "small"), ("small", "big")])
def test_unlike_services_that_fit_together_are_planned_in_any_order(order):
    # 8192 x 0.85 = 6963 MiB: the 8B takes 5261 at its shortest, the small one not even 400.
    models = {"big": "qwen3-8b", "small": SMALL}
    result = plan(cpu_host(8192, [{"name": name, "model": models[name]} for name in order]))
    assert not result.errors
    assert tuple(service.name for service in result.services) == order


def test_a_refusal_calls_only_that_left_which_is_left():
    # Two services, nothing decided yet: all of 85 % of 4096 is there for the first.
    services = [{"name": "big", "model": "qwen3-8b"}, {"name": "small", "model": SMALL}]
    problem = next(problem for problem in plan(cpu_host(4096, services)).errors if problem.service == "big")
    assert "1740 MiB are left" not in problem.message


def test_services_keep_the_order_of_the_inventory():
    services = [
        {"name": "open", "model": SMALL},
        {"name": "stated", "model": SMALL, "max_model_len": 512},
        {"name": "also-open", "model": SMALL},
    ]
    result = plan(cpu_host(8192, services))
    assert [service.name for service in result.services] == ["open", "stated", "also-open"]


def test_ports_start_at_8001_and_go_round_those_that_are_stated():
    services = [
        {"name": "a", "model": SMALL},
        {"name": "b", "model": SMALL, "port": 8001},
        {"name": "c", "model": SMALL},
        {"name": "d", "model": SMALL, "port": 8003},
        {"name": "e", "model": SMALL},
    ]
    result = plan(cpu_host(32768, services))
    assert [service.port for service in result.services] == [8002, 8001, 8004, 8003, 8005]


def test_unknown_names_of_all_hosts_are_told_at_once_with_what_is_known():
    hosts = load_hosts(
        [
            ("h1", {"gpu_tag": "h100-sxm9"}),
            ("h2", {"gpu_tag": "cpu", "memory_mib": 4096, "services": [{"name": "a", "model": "gpt-9"}]}),
            (
                "h3",
                {
                    "gpu_tag": "cpu",
                    "memory_mib": 4096,
                    "services": [{"name": "b", "model": SMALL, "quantization": "Q3"}],
                },
            ),
        ]
    )
    with pytest.raises(InputError) as caught:
        plan_hosts(hosts, load_catalog())
    told = {(problem.host, problem.service, problem.key): problem.hint for problem in caught.value.problems}
    assert set(told) == {("h1", "", "gpu_tag"), ("h2", "a", "model"), ("h3", "b", "quantization")}
    assert told["h1", "", "gpu_tag"].startswith("did you mean h100-sxm-80gb")
    assert "qwen3-8b" in told["h2", "a", "model"]
    assert "Q4_K_M" in told["h3", "b", "quantization"]


def test_a_gpu_host_is_planned_on_its_gpu_or_in_memory_when_simulated():
    data = {"gpu_tag": "h100-pcie", "services": [{"name": "a", "model": SMALL, "runtime": "llama.cpp"}]}
    (real,) = plan_hosts(load_hosts([("h1", data)]), load_catalog())
    assert not real.errors
    assert [(service.name, service.gpus) for service in real.gpu_services] == [("a", (0,))]
    assert not_installable(real, load_catalog()) == ()
    (simulated,) = plan_hosts(load_hosts([("h1", data | {"gpu_simulated": True})]), load_catalog())
    assert not simulated.errors
    assert simulated.capacity_mib == 81559
    assert "simulated" in " ".join(simulated.services[0].warnings)


def test_a_file_that_nobody_has_listed_is_planned_for_and_not_installed():
    service = {"name": "a", "model": "qwen2.5-14b-instruct", "runtime": "llama.cpp"}
    data = {"gpu_tag": "h100-pcie", "services": [service]}
    (plan,) = plan_hosts(load_hosts([("h1", data)]), load_catalog())
    assert not plan.errors
    (problem,) = not_installable(plan, load_catalog())
    assert (problem.service, problem.key) == ("a", "model")
    assert "Q4_K_M" in problem.message


def test_a_simulated_gpu_is_not_larger_than_the_memory_it_is_served_from():
    data = {"gpu_tag": "h100-pcie", "gpu_simulated": True, "memory_mib": 4096, "services": []}
    assert plan_hosts(load_hosts([("h1", data)]), load_catalog())[0].capacity_mib == 4096


def test_a_service_open_to_the_network_is_warned_about():
    assert "without TLS" in " ".join(planned(4096, listen="10.0.0.5").warnings)


def test_where_the_model_is_fetched_from_and_put():
    host = cpu_host(
        4096, [{"name": "a", "model": SMALL}], model_hub="http://mirror.example/hub/", models_dir="/data/models"
    )
    (service,) = plan(host).services
    revision = "9e6855bc4be717fca1ef21360a1db4b29d5c559a"
    repo, file = "unsloth/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct-Q4_K_M.gguf"
    assert service.source.url == f"http://mirror.example/hub/{repo}/resolve/{revision}/{file}"
    assert service.model_path == f"/data/models/{repo.replace('/', '--')}@{revision}/{file}"


def test_a_length_that_memory_cut_short_is_warned_of_until_it_is_stated():
    cut = planned(400)
    assert cut.max_model_len < 6400
    assert any(f"only {cut.max_model_len} of 6400 tokens fit" in warning for warning in cut.warnings)
    assert not planned(400, max_model_len=cut.max_model_len).warnings
    assert not planned(4096).warnings
