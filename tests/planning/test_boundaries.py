"""Rule numbers of planning: what is decided at the number, and what one step beyond it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.cli import cost, where
from rackserve.domain.errors import InputError
from rackserve.domain.gpu_state import GpuState
from rackserve.planning import (
    activation,
    allocator,
    alternatives,
    container_host,
    kv_cache,
    served,
    sizing,
    transaction,
)
from rackserve.planning import where as placement
from rackserve.planning.fit import _ports
from rackserve.planning.gpu_preflight import _space
from rackserve.planning.instance import size_instance
from rackserve.planning.kv_cache import Spec
from rackserve.planning.kv_types import kv_type_problem
from rackserve.planning.node_driver import wired_limit_mib
from rackserve.planning.preflight import host_problems
from rackserve.planning.quantize import cannot
from rackserve.planning.request import Request
from rackserve.planning.runtime_choice import default_runtime
from rackserve.planning.throughput import bound_notes, decode_bound
from tests.planning.driver_pairs import planned as driver
from tests.planning.making import cpu_host, plan
from tests.planning.sizing import request, shape, sized
from tests.planning.stacking import M4, T4, V100, card
from tests.planning.test_preflight import node

MIB = 1024**2


# memory


def fits(total_mib: int, **changes: Any) -> bool:
    result = size_instance(request(total_mib=total_mib, max_model_len=8192, concurrency=1, **changes))
    return not isinstance(result, str) and result.fits


def least_mib(**changes: Any) -> int:
    """The smallest GPU that is enough."""
    low, high = 1, 2**18
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle, **changes) else (middle, high)
    return high


@pytest.mark.parametrize("name", ["ceiling", "utilization"])
def test_the_highest_ceiling_that_is_offered_is_92_percent(name):
    key = {"ceiling": "memory_ceiling", "utilization": "gpu_memory_utilization"}[name]
    least = least_mib(**{name: 0.92})
    asked = request(total_mib=least, max_model_len=8192, concurrency=1, **{name: 0.85})
    assert [found.change for found in alternatives._higher_ceiling(asked)] == [((key, 0.92),)]
    assert list(alternatives._higher_ceiling(replace(asked, total_mib=least - 1))) == []
    assert list(alternatives._higher_ceiling(replace(asked, **{name: 0.92}))) == []
    assert list(alternatives._higher_ceiling(replace(asked, **{name: 0.9199}))) != []


@pytest.mark.parametrize(
    ("stated", "there", "met"), [(10_000, 9200, True), (10_000, 9199, False), (100, 92, True), (100, 91, False)]
)
def test_a_stated_memory_is_met_at_92_percent_of_it(stated, there, met):
    planned = plan(cpu_host(stated, []))
    assert (host_problems(planned, load_catalog(), node(memory_mib=there)) == []) is met


@pytest.mark.parametrize(
    ("memory_mib", "share", "limit"),
    # 4 GiB are left to macOS, or 15 % of a machine with more than 26.7 GiB.
    [(8192, 0.75, 4096), (16384, 0.75, 12288), (16384, 0.76, 12288), (200_000, 0.9, 170_000), (200_000, 0.84, 168_000)],
)
def test_macos_keeps_4_gib_or_15_percent(memory_mib, share, limit):
    gpu = M4.model_copy(update={"unified_share": share})
    host = SimpleNamespace(memory_mib=None)
    assert wired_limit_mib(host, gpu, node(memory_mib=memory_mib)) == limit


@pytest.mark.parametrize(
    ("size", "extra"),
    [(10, 0), (11, 1), (13, 1), (9, 0), (7, 0), (12.5, 0), (13.5, 0.5)],
)
def test_tensors_from_10_mib_on_are_rounded_to_2_mib_where_that_is_1_at_most(size, extra):
    assert allocator.rounding(int(size * MIB)) == extra * MIB


@pytest.mark.parametrize(("free", "short"), [(0, []), (-1, ["/", "/var", "/boot"])])
def test_a_driver_needs_5_gib_2_gib_and_300_mib(free, short):
    there = {"/": 5120 + free, "/var": 2048 + free, "/boot": 300 + free}
    planned = driver("l40s", "debian-12")
    lines = list(_space(planned, GpuState(system="debian-12", architecture="x86_64", kernel="6.1.0", free_mib=there)))
    assert [line.split()[0] for line in lines] == short


# what runs where


@pytest.mark.parametrize(("gpu", "runtime"), [(T4, "vllm"), (card("x", "7.4"), "llama.cpp"), (V100, "llama.cpp")])
def test_vllm_is_the_default_from_compute_capability_7_5_on(gpu, runtime):
    assert default_runtime(gpu) == runtime


@pytest.mark.parametrize(("target", "able"), [("7.9", False), ("8.0", True)])
def test_an_fp8_cache_needs_compute_capability_8_0(target, able):
    assert (kv_type_problem("vllm", "fp8", card("x", target)) == "") is able


@pytest.mark.parametrize(
    ("weight_format", "target", "able"),
    [("fp8", "7.9", False), ("fp8", "8.0", True), ("awq", "7.4", False), ("awq", "7.5", True)],
)
def test_formats_are_unpacked_from_these_capabilities_on(weight_format, target, able):
    assert (cannot(weight_format, card("x", target)) == "") is able


@pytest.mark.parametrize(("version", "enough"), [("4.6.2", False), ("4.7", True), ("4.7.0", True), ("5.0", True)])
def test_containers_need_podman_4_7(version, enough):
    assert container_host._new_enough(version) is enough


# lengths and batches


def few(concurrency: float) -> bool:
    engine = SimpleNamespace(
        request=request(), parallel=sized().parallel, concurrency_at=lambda _: concurrency, steps=None
    )
    return any("fill the KV cache" in warning for warning in sizing._warnings(engine, 8192))


@pytest.mark.parametrize(("concurrency", "warned"), [(0, False), (0.1, True), (1.99, True), (2, False), (2.9, False)])
def test_a_cache_for_fewer_than_2_requests_is_warned_of(concurrency, warned):
    assert few(concurrency) is warned


@pytest.mark.parametrize(("length", "warned"), [(8000, False), (8001, True)])
def test_a_length_over_80_percent_of_the_nominal_one_is_warned_of(length, warned):
    result = sized(model=shape(max_position_embeddings=10_000), max_model_len=length)
    assert any("quality may drop" in warning for warning in result.warnings) is warned


@pytest.mark.parametrize(("length", "on"), [(9999, False), (10_000, True)])
def test_prefixes_are_cached_from_10000_tokens_on_where_nothing_is_shared(length, on):
    assert sized(shared_prompts=False, max_model_len=length).prefix_caching is on


@pytest.mark.parametrize(("length", "useful"), [(1023, False), (1024, True)])
def test_a_window_of_1024_tokens_is_of_use(length, useful, monkeypatch):
    found = replace(sized(), max_model_len=length)
    monkeypatch.setattr(alternatives, "size_instance", lambda _: found)
    assert (alternatives._fits(found.request) is not None) is useful
    assert placement._useful(found) is useful


@pytest.mark.parametrize(("batch", "noted"), [(128, False), (129, True)])
def test_over_128_requests_at_once_arithmetic_is_the_limit(batch, noted):
    sizing_of = sized("h200", "llama-3.1-8b-instruct")
    notes = bound_notes(sizing_of, decode_bound(sizing_of, batch, 100))
    assert any("over 128 requests" in note for note in notes) is noted


@pytest.mark.parametrize(("seqs", "captured"), [(128, 35), (255, 50), (256, 51), (512, 51)])
def test_graphs_are_captured_for_batches_up_to_512(seqs, captured):
    assert activation.captured_sizes(seqs) == captured


@pytest.mark.parametrize(("least", "most", "groups"), [(20, 29, 2), (20, 30, 3), (20, 31, 3)])
def test_layers_of_two_kinds_are_one_group_each_below_half_as_many_more(least, most, groups):
    full, window = Spec("full", 16, 64), Spec("sliding", 16, 64, 4096)
    placed = list(enumerate([full] * least + [window] * most))
    assert len(kv_cache._groups(placed)) == groups


@pytest.mark.parametrize(("slots", "refused"), [(256, False), (257, True)])
def test_llama_server_has_256_slots(slots, refused):
    result = size_instance(request("h200", runtime="llama.cpp", quantization="Q4_K_M", concurrency=slots))
    assert (isinstance(result, str) and "at most 256 slots" in result) is refused
    host = cpu_host(2**25, [{"name": "a", "model": "smollm2-135m-instruct", "concurrency": slots}])
    assert told("at most 256 slots", plan, host) is refused


def told(words: str, function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether the problems that are raised, or returned, have these words."""
    try:
        found = function(*arguments)
    except InputError as error:
        found = error.problems
    return any(words in str(problem) for problem in getattr(found, "errors", found))


@pytest.mark.parametrize(("limit", "refused"), [(1200, False), (1199, True)])
def test_where_and_cost_refuse_an_average_as_an_inventory_does(limit, refused):
    options = {"config": None, "gguf": None, "avg_tokens": 1000, "max_model_len": limit}
    assert told("x 1.2 is more than", where._arguments, ("m", "i"), options) is refused
    prices = dict.fromkeys([*cost._PRICES, "power_watts", "kwh_price", "gpu_hour", "api_input", "api_output"])
    load = {"efficiency": 0.5, "prompt": 800, "completion": 200, "max_model_len": limit}
    assert told("x 1.2 is more than", cost._number_problems, prices | load) is refused


# what is offered


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Every request that was tried, none of which fits."""
    requests: list[Request] = []
    monkeypatch.setattr(alternatives, "_fits", requests.append)
    return requests


def test_up_to_16_gpus_are_offered(tried):
    assert list(alternatives._more_gpus(request(gpus=1))) == []
    assert sorted({asked.gpus for asked in tried}) == [2, 4, 8, 16]


def test_the_next_3_smaller_models_are_offered(tried):
    assert list(alternatives._other_models(request(), load_catalog())) == []
    assert len(tried) == 3


def test_up_to_64_requests_are_offered_where_nobody_said_how_many(monkeypatch):
    monkeypatch.setattr(alternatives, "_fits", lambda _: sized())
    assert [found.change for found in alternatives._fewer(request())] == [(("concurrency", 64),)]


@pytest.mark.parametrize(("count", "more"), [(8, ""), (9, " and 1 more")])
def test_8_packages_are_named(count, more):
    assert transaction._listed("abcdefghi"[:count]) == "a, b, c, d, e, f, g, h" + more


# what is seen of a card


@pytest.mark.parametrize(
    ("vendor", "vram_mib", "usable"),
    [("nvidia", 100_000, 98_000), ("nvidia", 20_000, 19_500), ("amd", 100_000, 99_000), ("intel", 100_000, 95_000)],
)
def test_a_runtime_sees_this_much_of_a_card(vendor, vram_mib, usable):
    gpu = card("x", "8.0").model_copy(update={"vendor": vendor, "vram_mib": vram_mib})
    assert gpu.usable_mib == usable


def test_ports_that_nobody_stated_begin_at_8001():
    host = cpu_host(2**20, [{"name": name, "model": "smollm2-135m-instruct"} for name in ("a", "b")])
    assert _ports(host) == {"a": 8001, "b": 8002}


@pytest.mark.parametrize(
    ("weights", "stated", "first_compile", "seconds"),
    # 3 times what 200 MB/s take, beside 600 s of preparation and the first compilation; what the host states is the
    # least, 7200 s the most.
    [
        (100 * 10**9, 900, None, 2100),
        (100 * 10**9 + 1, 900, None, 2101),
        (100 * 10**9, 900, 300, 2400),
        (10**9, 900, None, 900),
        (10**12, 900, None, 7200),
        (10**12, 7200, None, 7200),
    ],
)
def test_a_start_may_take_as_long_as_a_slow_disk(weights, stated, first_compile, seconds):
    host = SimpleNamespace(start_timeout=stated)
    compiler = None if first_compile is None else SimpleNamespace(first_start_s=first_compile)
    allowance = served.start_allowance(host, replace(sized(), weights_bytes=weights), compiler)
    assert allowance.seconds == seconds


@pytest.mark.parametrize(("branch", "cuda"), [("570", "cuda12"), ("580", "cuda13")])
def test_dcgm_is_for_cuda_13_from_driver_580_on(branch, cuda):
    packages = driver("l40s", "debian-12", driver_branch=branch, allow_eol=True).packages
    assert [name for name in packages if "cuda1" in name] == [f"datacenter-gpu-manager-4-{cuda}"]
