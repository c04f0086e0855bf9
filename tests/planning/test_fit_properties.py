"""What holds for every host, model and wish."""

from __future__ import annotations

import math
import re
from typing import Any

from hypothesis import assume, event, given
from hypothesis import strategies as st

from rackserve.catalog.loader import Catalog
from rackserve.catalog.shapes import shape_of
from rackserve.domain.model import LanguageModel
from rackserve.planning.plans import HostPlan
from tests.examples import examples
from tests.planning.making import architecture, catalog_of, cpu_host, gguf, model, plan

MIB = 1024**2
Wish = dict[str, Any]


@st.composite
def models(draw: st.DrawFn, name: str) -> LanguageModel:
    shape = architecture(
        layers=draw(st.sampled_from([2, 24, 32, 80])),
        kv_heads=draw(st.sampled_from([1, 2, 8])),
        key_length=draw(st.sampled_from([64, 128])),
        value_length=128,
        embedding_length=1024,
        vocab_size=draw(st.sampled_from([1000, 150000])),
        context_length=draw(st.sampled_from([512, 4096, 5000, 8192, 131072])),
    )
    sizes = draw(st.lists(st.integers(1, 9000), min_size=1, max_size=3))
    return model(name, shape, *(gguf(f"Q{index}", size * MIB) for index, size in enumerate(sizes)))


catalogs = st.builds(catalog_of, models("one"), models("two"))
lengths = st.sampled_from([256, 300, 512, 1000, 1024, 1280, 1536, 4000, 4096, 8192])


@st.composite
def wishes(draw: st.DrawFn, name: str) -> Wish:
    wish: Wish = {
        "name": name,
        "model": draw(st.sampled_from(["one", "two"])),
        "concurrency": draw(st.integers(1, 10)),
        "kv_cache_dtype": draw(st.sampled_from(["f16", "q8_0", "q4_0"])),
        "max_model_len": draw(st.none() | lengths),
    }
    if wish["max_model_len"] is not None and draw(st.booleans()):
        wish["avg_tokens"] = draw(st.integers(1, wish["max_model_len"] * 5 // 6))
    return wish


def wish_lists(smallest: int, largest: int) -> st.SearchStrategy[list[Wish]]:
    return st.integers(smallest, largest).flatmap(
        lambda count: st.tuples(*(wishes(name) for name in "abcd"[:count])).map(list)
    )


# Small enough that both answers come up.
memories = st.integers(64, 20_000)


def decide(catalog: Catalog, memory_mib: int, wanted: list[Wish], **data: Any) -> HostPlan:
    result = plan(cpu_host(memory_mib, wanted, **data), catalog)
    event("yes" if not result.errors else "no")
    return result


@given(catalogs, memories, wish_lists(1, 4))
def test_every_service_is_planned_or_refused_and_all_fit_together(catalog, memory, wanted):
    result = decide(catalog, memory, wanted)
    assert result.used_mib <= result.budget_mib <= memory
    assert {service.name for service in result.services} | {problem.service for problem in result.errors} == {
        wish["name"] for wish in wanted
    }
    assert len(result.services) + len(result.errors) == len(wanted)
    assert all(re.search(r"\d", problem.message) for problem in result.errors)


@given(catalogs, memories, wish_lists(1, 4))
def test_what_is_planned_holds_what_was_asked_for(catalog, memory, wanted):
    for service in decide(catalog, memory, wanted).services:
        asked = service.service
        average = asked.avg_tokens or service.max_model_len // 2
        assert service.context_size >= 1.2 * asked.concurrency * average
        assert service.slots >= asked.concurrency
        assert service.max_model_len % 256 == 0
        if asked.max_model_len is None:
            assert service.max_model_len <= shape_of(service.model).context_length * 0.8
        else:
            assert 0 <= service.max_model_len - asked.max_model_len < 256


@given(catalogs, wish_lists(2, 4), st.lists(st.sampled_from([8001, 8002, 8003, 9000]), unique=True, max_size=2))
def test_ports_are_unique(catalog, wanted, stated):
    for wish, port in zip(wanted, stated, strict=False):
        wish["port"] = port
    ports = {service.name: service.port for service in decide(catalog, 500_000, wanted).services}
    assert len(set(ports.values())) == len(ports)
    assert all(ports.get(wish["name"], port) == port for wish, port in zip(wanted, stated, strict=False))


@given(catalogs, memories, wish_lists(1, 3), st.integers(1, 5000))
def test_more_memory_never_turns_yes_into_no(catalog, memory, wanted, more):
    assume(not plan(cpu_host(memory, wanted), catalog).errors)
    assert not decide(catalog, memory + more, wanted).errors


@given(catalogs, memories, wishes("a"), st.data())
def test_asking_for_less_never_turns_yes_into_no(catalog, memory, wish, data):
    assume(not plan(cpu_host(memory, [wish]), catalog).errors)
    smaller = {"f16": "q8_0", "q8_0": "q4_0", "q4_0": "q4_0"}
    less = wish | {
        "concurrency": data.draw(st.integers(1, wish["concurrency"])),
        "kv_cache_dtype": data.draw(st.sampled_from([wish["kv_cache_dtype"], smaller[wish["kv_cache_dtype"]]])),
    }
    if wish["max_model_len"] is not None:
        shortest = max(256, math.ceil(wish.get("avg_tokens", 1) * 1.2))
        assume(shortest <= wish["max_model_len"])
        less["max_model_len"] = data.draw(st.integers(shortest, wish["max_model_len"]))
    assert not decide(catalog, memory, [less]).errors


@given(catalogs, memories, wish_lists(2, 3), st.randoms(use_true_random=False))
def test_the_order_of_services_does_not_decide_whether_they_fit(catalog, memory, wanted, random):
    shuffled = list(wanted)
    random.shuffle(shuffled)
    assert bool(decide(catalog, memory, wanted).errors) == bool(plan(cpu_host(memory, shuffled), catalog).errors)


_OPTION = re.compile(r"(max_model_len|kv_cache_dtype|concurrency|quantization) (\w+)")


@examples(200)
@given(catalogs, memories, wishes("a"))
def test_every_alternative_that_a_refusal_names_fits_when_it_is_taken(catalog, memory, wish):
    result = decide(catalog, memory, [wish])
    assume(result.errors)
    options = _OPTION.findall(result.errors[0].hint)
    event(f"{len(options)} alternatives")
    for key, value in options:
        taken = wish | {key: int(value) if value.isdigit() else value}
        assert not plan(cpu_host(memory, [taken]), catalog).errors, (key, value)


@examples(200)
@given(catalogs, memories, wishes("a"))
def test_nothing_smaller_fits_where_a_refusal_says_so(catalog, memory, wish):
    result = decide(catalog, memory, [wish])
    assume(result.errors and "nothing smaller" in result.errors[0].hint)
    for key, value in [("kv_cache_dtype", "q4_0"), ("concurrency", 1), ("max_model_len", 256)]:
        if key == "max_model_len" and value < wish.get("avg_tokens", 1) * 1.2:
            # A length that the average request does not fit into is no way out.
            continue
        taken = wish | {key: value}
        assert plan(cpu_host(memory, [taken]), catalog).errors, (key, value)
