"""Speed bounds from bandwidth, and costs from the operator's prices: compared with arithmetic done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackserve.catalog.loader import load_catalog
from rackserve.catalog.shapes import shape_of
from rackserve.domain.shape import AttentionCache, LatentCache, StateCache
from rackserve.planning.cost import BreakEven, Load, Prices, advice, break_even, costs
from rackserve.planning.instance import size_instance
from rackserve.planning.question import Question
from rackserve.planning.sized import Sizing
from rackserve.planning.throughput import (
    Decode,
    bound_notes,
    decode_bound,
    experts_touched,
    kv_bytes_read,
)

CATALOG = load_catalog()
# 32 layers: q and o 4096 x 4096, k and v 1024 x 4096, three of 14336 x 4096, two norms; the head, and one norm more.
LLAMA_8B_LAYERS = 32 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14336 * 4096 + 2 * 4096)
LLAMA_8B_READ = 2 * (LLAMA_8B_LAYERS + 128256 * 4096)
LLAMA_8B_KV = 2 * 32 * 8 * 128 * 2
VERSIONS = {"vllm": "0.33.0", "llama.cpp": "0.6.0", "sglang": "0.5.23"}


def sized(model: str, tag: str, gpus: int = 1, *, runtime: str = "vllm", **changes: object) -> Sizing:
    listed, gpu = CATALOG.models[model], CATALOG.gpus[tag]
    files = tuple((file.quantization, file.size_bytes) for file in listed.gguf)
    question = Question(model, shape_of(listed), files=files)
    total = gpu.usable_mib or 65536
    request = replace(question.request(gpu, total, runtime, VERSIONS[runtime], CATALOG), gpus=gpus, **changes)
    found = size_instance(request)
    assert isinstance(found, Sizing), found
    return found


def bound(sizing: Sizing, batch: int, context: int) -> Decode:
    found = decode_bound(sizing, batch, context)
    assert isinstance(found, Decode), found
    return found


# throughput


@pytest.mark.parametrize(("batch", "context"), [(1, 0), (1, 4000), (32, 1000)])
def test_a_dense_model_reads_its_weights_once_and_the_cache_of_every_sequence(batch, context):
    found = bound(sized("llama-3.1-8b-instruct", "h100-sxm-80gb"), batch, context)
    step = LLAMA_8B_READ + batch * context * LLAMA_8B_KV
    assert found.tokens_per_s == pytest.approx(batch * 3350e9 / step, rel=1e-3)
    assert found.weight_bytes == pytest.approx(LLAMA_8B_READ, rel=1e-3)
    assert found.kv_bytes == batch * context * LLAMA_8B_KV


def test_quantization_makes_one_stream_faster_by_what_it_saves():
    plain = bound(sized("llama-3.1-8b-instruct", "h100-sxm-80gb"), 1, 1)
    fp8 = bound(sized("llama-3.1-8b-instruct", "h100-sxm-80gb", quantization="fp8"), 1, 1)
    # The head stays in 16 bits.
    assert fp8.weight_bytes == pytest.approx(LLAMA_8B_LAYERS + 2 * 128256 * 4096, rel=2e-3)
    assert fp8.tokens_per_s > 1.8 * plain.tokens_per_s


def test_an_fp8_cache_is_read_in_half_the_bytes():
    plain = bound(sized("llama-3.1-8b-instruct", "h100-sxm-80gb"), 8, 4000)
    assert bound(sized("llama-3.1-8b-instruct", "h100-sxm-80gb", kv_cache_dtype="fp8"), 8, 4000).kv_bytes == (
        plain.kv_bytes / 2
    )


@pytest.mark.parametrize("batch", [1, 16])
def test_tensor_parallelism_divides_the_bytes(batch):
    one, four = (bound(sized("llama-3.1-8b-instruct", "h100-sxm-80gb", gpus), batch, 2000) for gpus in (1, 4))
    assert four.tokens_per_s == pytest.approx(4 * one.tokens_per_s, rel=1e-3)


def test_pipeline_stages_do_not_speed_up_one_stream_but_several():
    one = sized("llama-3.1-8b-instruct", "h100-sxm-80gb")
    two = sized("llama-3.1-8b-instruct", "h100-sxm-80gb", 2, pipeline_parallel=2)
    assert bound(two, 1, 2000).tokens_per_s == pytest.approx(bound(one, 1, 2000).tokens_per_s, rel=1e-3)
    # Each of two micro-batches reads all weights of a stage: less than twice as fast, and never slower than one GPU.
    both = bound(two, 64, 2000).tokens_per_s / bound(one, 64, 2000).tokens_per_s
    assert 1 < both < 2


def test_kv_heads_that_are_repeated_are_read_on_every_gpu():
    caches = (AttentionCache(kv_heads=2, key_length=64, value_length=64),)
    assert kv_bytes_read(caches, 2, 2.0, 100, 2) == 100 * 128 * 2
    assert kv_bytes_read(caches, 8, 2.0, 100, 2) == 100 * 128 * 2


def test_windows_latents_and_states_read_what_they_keep():
    windowed = AttentionCache(kv_heads=1, key_length=64, value_length=64, window=50)
    assert kv_bytes_read((windowed,), 1, 2.0, 10_000, 2) == 50 * 128 * 2
    assert kv_bytes_read((windowed,), 1, 2.0, 20, 2) == 20 * 128 * 2
    assert kv_bytes_read((LatentCache(576),), 8, 2.0, 10, 2) == 10 * 576 * 2
    assert kv_bytes_read((StateCache(conv=100, ssm=1000),), 1, 2.0, 10, 2) == kv_bytes_read(
        (StateCache(conv=100, ssm=1000),), 1, 2.0, 10_000, 2
    )


def test_one_token_of_a_mixture_reads_the_chosen_experts_and_many_read_all():
    sizing = sized("qwen3-30b-a3b", "h100-sxm-80gb")
    shape = sizing.request.shape
    assert bound(sizing, 1, 1).weight_bytes == pytest.approx(2 * shape.active_parameters, rel=0.01)
    everything = 2 * (shape.parameters - shape.embedding.elements)
    assert bound(sizing, 1000, 1).weight_bytes == pytest.approx(everything, rel=0.01)


@given(count=st.integers(2, 512), chosen=st.integers(1, 32), batch=st.integers(1, 2048))
def test_experts_touched_are_between_the_chosen_and_all(count, chosen, batch):
    touched = experts_touched(count, chosen, batch)
    most = min(count, batch * chosen)
    assert min(count, chosen) - 1e-6 <= touched <= most + 1e-6
    assert touched <= experts_touched(count, chosen, batch + 1) + 1e-6
    assert experts_touched(count, chosen, 1) == pytest.approx(min(count, chosen))


def test_llamacpp_reads_its_file_without_the_embedding_and_never_two_gpus_at_once():
    one = bound(sized("llama-3.1-8b-instruct", "rtx-4090", runtime="llama.cpp", max_model_len=8192), 1, 1)
    two = bound(sized("llama-3.1-8b-instruct", "rtx-4090", 2, runtime="llama.cpp", max_model_len=8192), 1, 1)
    file = CATALOG.models["llama-3.1-8b-instruct"].gguf[0].size_bytes
    assert 0.9 * file < one.weight_bytes < file
    assert two.tokens_per_s == one.tokens_per_s


def test_without_a_bandwidth_there_is_no_bound():
    sizing = sized("qwen3-8b", "cpu", runtime="llama.cpp", max_model_len=4096)
    said = decode_bound(sizing, 1, 100)
    assert isinstance(said, str)
    assert "cpu" in said


def test_layers_in_ram_have_no_bound():
    small = sized("qwen3-8b", "rtx-4060-ti-8gb", runtime="llama.cpp", max_model_len=32768, host_mib=64000)
    assert small.fits
    said = decode_bound(small, 1, 100)
    assert isinstance(said, str)
    assert "RAM" in said


def test_every_speed_in_json_says_that_it_is_a_bound():
    told = bound(sized("llama-3.1-8b-instruct", "l40s"), 4, 1000).as_dict()
    speeds = [key for key in told if "tokens_per_s" in key or "ms_" in key]
    assert len(speeds) == 3
    assert all("bound" in key for key in speeds)


def test_large_batches_carry_a_note():
    sizing = sized("llama-3.1-8b-instruct", "h200")
    assert bound_notes(sizing, bound(sizing, 8, 100)) == ()
    assert "arithmetic" in bound_notes(sizing, bound(sizing, 512, 100))[0]


# cost

PRICES = Prices(gpu_hour=2.0, api_input=0.5, api_output=1.5, watts=1000, kwh=0.3, host_month=730)
LOAD = Load(prompt=1000, completion=250)


def test_an_hour_costs_gpus_power_and_the_host():
    assert PRICES.per_hour(4) == pytest.approx(4 * 2.0 + 1.0 * 0.3 + 1.0)


def test_a_request_costs_both_kinds_of_tokens_at_the_api():
    assert LOAD.api_price(PRICES) == pytest.approx((1000 * 0.5 + 250 * 1.5) / 1e6)


def test_cost_per_million_tokens_by_hand():
    found = costs(bound=5000, efficiency=0.5, load=LOAD, prices=PRICES, gpus=1)
    full = found.levels[-1]
    assert (full.utilization, full.completion_tokens_per_s, full.requests_per_s) == (1.0, 2500, 10)
    # 3.30 an hour for 10 requests/s of 1250 tokens.
    assert full.cost_per_mtok == pytest.approx(3.3 / (10 * 1250 * 3600) * 1e6)
    assert found.levels[0].cost_per_mtok == pytest.approx(10 * full.cost_per_mtok)
    assert found.api_per_mtok == pytest.approx(875 / 1250)


def test_break_even_by_hand():
    even = break_even(5000, 0.5, LOAD, PRICES, 1)
    assert even.requests_per_s == pytest.approx(3.3 / 3600 / 875e-6)
    assert even.tokens_per_day == pytest.approx(3.3 / 3600 / 875e-6 * 1250 * 86400)
    assert even.utilization == pytest.approx(3.3 / 3600 / 875e-6 / 10)
    assert (even.reachable, even.within_bound) == (True, True)


@given(
    bound=st.floats(1, 1e6),
    efficiency=st.floats(0.01, 1),
    hour=st.floats(0.01, 100),
    price=st.floats(0.01, 100),
    load=st.builds(Load, prompt=st.integers(1, 100_000), completion=st.integers(1, 10_000)),
)
def test_at_the_break_even_both_cost_the_same(bound, efficiency, hour, price, load):
    prices = Prices(gpu_hour=hour, api_input=price, api_output=2 * price)
    even = break_even(bound, efficiency, load, prices, 1)
    assert even.requests_per_s is not None
    assert even.requests_per_s * 3600 * load.api_price(prices) == pytest.approx(hour)
    assert even.within_bound or not even.reachable
    assert even.reachable == (even.utilization <= 1)
    assert costs(bound, efficiency, load, prices, 1).levels[-1].cost_per_mtok > 0


@pytest.mark.parametrize(
    ("bound", "expected", "word"),
    [(5000, (True, True), "break-even at"), (400, (False, True), "not reached"), (100, (False, False), "impossible")],
)
def test_what_cannot_pay_is_said_plainly(bound, expected, word):
    found = costs(bound, 0.5, LOAD, PRICES, 1)
    assert (found.break_even.reachable, found.break_even.within_bound) == expected
    sentences = advice(found, bound, 0.5, LOAD, "EUR")
    assert word in sentences[0]
    assert "do not self-host" in sentences[1]


def test_a_free_api_has_no_break_even():
    free = replace(PRICES, api_input=0, api_output=0)
    found = costs(5000, 0.5, LOAD, free, 1)
    assert found.break_even == BreakEven(None, None, None, reachable=False, within_bound=False)
    assert "do not self-host" in advice(found, 5000, 0.5, LOAD, "")[0]


def test_below_a_few_requests_per_second_an_api_is_cheaper():
    # 70B on four H100 at 2 an hour each, against 0.6 and 0.6 per million tokens.
    sizing = sized("llama-3.3-70b-instruct", "h100-sxm-80gb", 4, quantization="fp8")
    found = bound(sizing, 64, LOAD.context)
    even = break_even(found.tokens_per_s, 0.5, LOAD, Prices(gpu_hour=2.0, api_input=0.6, api_output=0.6), 4)
    assert even.requests_per_s is not None
    assert 1 < even.requests_per_s < 20
