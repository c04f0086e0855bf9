"""What holds for every model, GPU and wish that can be sized."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from rackserve.catalog.architectures.reader import read_config
from rackserve.catalog.loader import load_catalog
from rackserve.domain.gpu import Gpu
from rackserve.domain.shape import Shape
from rackserve.planning.alternatives import alternatives
from rackserve.planning.engine_facts import engine_for
from rackserve.planning.instance import size_instance
from rackserve.planning.parallel import tensor_parallel_problem
from rackserve.planning.request import Request
from rackserve.planning.sized import Sizing
from rackserve.planning.weights import weights
from tests.examples import examples

CATALOG = load_catalog()
VERSIONS = {
    "vllm": ("0.11.0", "0.19.0", "0.33.0"),
    "sglang": ("0.5.23",),
    "tensorrt-llm": ("1.2.1",),
    "llama.cpp": ("0.6.0",),
}
DENSE = {"head_dim": 128, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 32768}


def config(kind: str, layers: int, hidden: int) -> dict[str, Any]:
    base = DENSE | {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": 32}
    base["intermediate_size"] = hidden * 3
    experts = {"num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": hidden // 2}
    kinds: dict[str, dict[str, Any]] = {
        "llama": {"model_type": "llama"},
        "windowed": {"model_type": "gemma3_text", "sliding_window": 1024},
        "experts": {"model_type": "qwen3_moe", **experts},
        "latent": {
            "model_type": "deepseek_v2",
            "kv_lora_rank": 512,
            "qk_rope_head_dim": 64,
            "qk_nope_head_dim": 128,
            "v_head_dim": 128,
            "q_lora_rank": None,
        },
        "recurrent": {
            "model_type": "qwen3_next",
            "linear_num_key_heads": 16,
            "linear_key_head_dim": 128,
            "linear_num_value_heads": 32,
            "linear_value_head_dim": 128,
            "linear_conv_kernel_dim": 4,
            "shared_expert_intermediate_size": hidden // 2,
            **experts,
        },
    }
    return base | kinds[kind]


def gpu(vram_mib: int, target: str = "9.0") -> Gpu:
    formats = ("fp16", "bf16", "int8", "fp8")
    return Gpu(
        tag="test",
        name="Test",
        vendor="nvidia",
        vram_mib=vram_mib,
        target=target,
        formats=formats,
        source="test",
        date="2026-11-24",
    )


shapes = st.builds(
    lambda kind, layers, hidden: read_config(config(kind, layers, hidden), "test"),
    st.sampled_from(["llama", "windowed", "experts", "latent", "recurrent"]),
    st.sampled_from([4, 12, 32]),
    st.sampled_from([1024, 4096]),
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    runtime = draw(st.sampled_from(sorted(VERSIONS)))
    version = draw(st.sampled_from(VERSIONS[runtime]))
    card = gpu(draw(st.integers(2_000, 200_000)), draw(st.sampled_from(["9.0", "12.1"])))
    llama = runtime == "llama.cpp"
    length = draw(st.none() | st.integers(256, 32768))
    return Request(
        model="test",
        shape=draw(shapes),
        gpu=card,
        total_mib=card.usable_mib,
        runtime=runtime,
        version=version,
        engine=engine_for(CATALOG, runtime, version),
        gpus=draw(st.sampled_from([1, 2, 4, 8])),
        quantization=draw(st.sampled_from(["Q4_K_M", "Q8_0"] if llama else ["none", "fp8", "gptq"])),
        kv_cache_dtype=draw(st.sampled_from(["f16", "q8_0"] if llama else ["auto", "fp8"])),
        max_model_len=length,
        concurrency=draw(st.none() | st.integers(1, 64)),
        avg_tokens=draw(st.none() | st.integers(1, length or 20_000)),
    )


def answered(request: Request) -> Sizing:
    result = size_instance(request)
    assert isinstance(result, Sizing), result
    return result


def sized(request: Request) -> Sizing:
    result = answered(request)
    event(f"{request.runtime}: {'yes' if result.fits else 'no'}")
    return result


@given(requests(), st.integers(1, 50_000))
def test_more_vram_never_turns_yes_into_no(request, more):
    assume(sized(request).fits)
    larger = gpu(request.gpu.vram_mib + more, request.gpu.target)
    assert sized(replace(request, gpu=larger, total_mib=larger.usable_mib)).fits


@given(requests(), st.data())
def test_fewer_tokens_never_turn_yes_into_no(request, data):
    first = sized(request)
    assume(first.fits)
    shortest = max(256, request.avg_tokens or 1)
    assume(first.max_model_len >= shortest)
    length = data.draw(st.integers(shortest, first.max_model_len))
    concurrency = data.draw(st.integers(1, request.concurrency)) if request.concurrency else None
    average = data.draw(st.integers(1, request.avg_tokens)) if request.avg_tokens else None
    assert sized(replace(request, max_model_len=length, concurrency=concurrency, avg_tokens=average)).fits


SMALLER = {
    "quantization": {"none": "fp8", "fp8": "gptq", "Q8_0": "Q4_K_M"},
    "kv_cache_dtype": {"auto": "fp8", "f16": "q8_0", "q8_0": "q4_0"},
}


@given(requests(), st.sampled_from(sorted(SMALLER)))
def test_a_smaller_type_never_turns_yes_into_no(request, field):
    smaller = SMALLER[field].get(getattr(request, field))
    assume(smaller is not None)
    first = sized(request)
    assume(first.fits)
    # The length that was found, so that a smaller type is not asked for more of them.
    second = sized(replace(request, max_model_len=first.max_model_len, **{field: smaller}))
    # llama.cpp rotates the queries of a quantized cache, in a copy of its own: a few tokens save less than that takes.
    saved = first.kv_cache_bytes - second.kv_cache_bytes
    copied = second.stage.activation - first.stage.activation if second.offload is not None else 0
    assert second.fits or copied > saved


@given(shapes, st.sampled_from(["", "fp8", "awq"]), st.sampled_from([1, 2, 4]))
def test_tensor_parallelism_never_makes_weights_larger(shape: Shape, quantization, size):
    assume(not tensor_parallel_problem(shape, size * 2))
    more, fewer = (weights(shape, quantization, tensor).bytes_per_gpu for tensor in (size * 2, size))
    assert more <= fewer
    assert more * 2 >= fewer - shape.buffers_bytes - 64


@given(requests())
def test_the_parts_stay_below_the_ceiling_where_it_fits(request):
    result = sized(request)
    assume(result.fits and request.runtime != "vllm")
    assert result.used_bytes <= request.total_bytes * request.ceiling * 1.001


@given(requests())
def test_what_fits_holds_what_was_asked_for(request):
    result = sized(request)
    assume(result.fits)
    wanted, tokens = result.demand
    assert result.kv_cache_bytes >= 0
    assert result.max_concurrency >= 1
    assert result.max_concurrency * result.max_model_len >= wanted * tokens * 0.99 or request.shape.windowed
    assert result.max_model_len <= request.shape.context_length


@given(requests())
def test_a_step_holds_the_longest_prompt_where_none_is_cut(request):
    result = sized(request)
    event(f"whole: {bool(result.whole_prompts)}")
    assert not result.whole_prompts or result.max_num_batched_tokens >= result.max_model_len


@given(requests())
def test_json_goes_round(request):
    answer = sized(request).as_dict()
    assert json.loads(json.dumps(answer)) == answer
    assert answer["reasons"]
    assert bool(answer["short"]) == (not answer["fits"])


@examples(25)
@given(requests())
def test_every_alternative_fits_when_it_is_taken(request):
    result = sized(request)
    assume(not result.fits)
    names = {"memory_ceiling": "ceiling", "gpu_memory_utilization": "utilization", "memory_mib": "host_mib"}
    for entry in alternatives(request, CATALOG):
        event(entry.change[0][0])
        if entry.change[0][0] in {"gpu", "model"}:
            continue
        change = {names.get(key, key): value for key, value in entry.change}
        assert sized(replace(request, **change)).fits, entry.text


@pytest.mark.parametrize("runtime", sorted(VERSIONS))
def test_every_reason_has_its_number(runtime):
    card = gpu(81559)
    request = Request(
        model="test",
        shape=read_config(config("llama", 32, 4096), "test"),
        gpu=card,
        total_mib=card.usable_mib,
        runtime=runtime,
        version=VERSIONS[runtime][-1],
        engine=engine_for(CATALOG, runtime, VERSIONS[runtime][-1]),
    )
    reasons = answered(request).all_reasons()
    for word in ("quantization", "max_model_len", "memory share", "weights", "KV cache"):
        assert any(word in reason for reason in reasons), word
    # llama.cpp is given no flag for it.
    assert any("prefix caching" in reason for reason in reasons) == (runtime != "llama.cpp")
