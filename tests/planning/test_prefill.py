"""Where prompts are computed in chunks, where whole, and what a whole one costs."""

from __future__ import annotations

import pytest

from rackserve.planning.alternatives import alternatives
from rackserve.runtimes.commands import argv
from rackserve.runtimes.endpoint import Endpoint
from rackserve.runtimes.options import Options
from tests.planning.sizing import CATALOG, impossible, request, shape, sized

GEMMA_TEXT = {
    "model_type": "gemma3_text",
    "head_dim": 256,
    "sliding_window": 512,
    "num_hidden_layers": 26,
    "hidden_size": 1152,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "intermediate_size": 6912,
    "vocab_size": 262144,
    "max_position_embeddings": 32768,
}


@pytest.mark.parametrize(
    ("runtime", "version", "model", "tag", "whole"),
    [
        ("tensorrt-llm", "1.2.1", "llama-3.1-8b-instruct", "a100-80gb-sxm", False),
        ("tensorrt-llm", "1.2.1", "deepseek-v3", "a100-80gb-sxm", True),
        ("tensorrt-llm", "1.2.1", "deepseek-v3", "l40s", True),
        ("tensorrt-llm", "1.2.1", "deepseek-v3", "h200", False),
        ("tensorrt-llm", "1.2.1", "deepseek-v3", "b200", False),
        ("tensorrt-llm", "1.2.1", "deepseek-v3", "b300", False),
        ("tensorrt-llm", "1.2.1", "kimi-k2-instruct", "rtx-pro-6000-blackwell-server", False),
        ("tensorrt-llm", "1.4.0rc1", "deepseek-v3", "a100-80gb-sxm", True),
        ("tensorrt-llm", "1.1.0", "deepseek-v3", "h200", False),
        ("tensorrt-llm", "1.1.0", "deepseek-v3", "b300", True),
        ("tensorrt-llm", "1.2.1", "gemma-3-12b-it", "h200", True),
        ("tensorrt-llm", "1.2.1", "llama-4-scout-17b-16e-instruct", "b300", True),
        ("tensorrt-llm", "1.2.1", "mistral-small-3.1-24b-instruct-2503", "h200", False),
        ("tensorrt-llm", "1.2.1", "gpt-oss-20b", "h200", False),
        ("tensorrt-llm", "1.1.0", "gpt-oss-20b", "h200", True),
        ("vllm", "0.10.1", "qwen3-8b", "t4", True),
        ("vllm", "0.10.1", "qwen3-8b", "v100-32gb-sxm", True),
        ("vllm", "0.10.1", "qwen3-8b", "l4", False),
        ("vllm", "0.10.2", "qwen3-8b", "t4", False),
        ("vllm", "0.33.0", "gemma-3-12b-it", "h200", False),
        ("sglang", "0.5.23", "gemma-3-12b-it", "h200", False),
    ],
)
def test_prompts_are_whole_where_the_catalogue_says_so(runtime, version, model, tag, whole):
    planned = sized(tag, model, runtime=runtime, version=version, gpus=8, tensor_parallel=8)
    assert bool(planned.whole_prompts) is whole
    assert planned.as_dict()["chunked_prefill"] is not whole
    assert any("a step holds a whole prompt" in reason for reason in planned.all_reasons()) is whole


def test_a_model_without_its_tower_is_as_any_other():
    assert not sized("h200", shape(**GEMMA_TEXT), runtime="tensorrt-llm").whole_prompts


def test_a_step_holds_the_longest_prompt_beside_a_token_of_every_other_request():
    for concurrency in (None, 1, 400):
        planned = sized("h200", "gemma-3-12b-it", runtime="tensorrt-llm", concurrency=concurrency, max_model_len=20_000)
        assert planned.max_num_batched_tokens == 20_000 + planned.max_num_seqs
    assert sized("h200", "gemma-3-12b-it", runtime="tensorrt-llm", max_model_len=4096).max_num_batched_tokens == 8192
    assert sized("h200", "qwen3-8b", runtime="tensorrt-llm", max_model_len=20_000).max_num_batched_tokens == 8192


def test_the_memory_of_a_whole_prompt_is_taken_from_the_cache():
    short, long = (
        sized("h200", "gemma-3-12b-it", runtime="tensorrt-llm", max_model_len=length, concurrency=1)
        for length in (20_000, 80_000)
    )
    assert long.stage.activation == pytest.approx(4 * short.stage.activation, rel=0.01)
    # TensorRT-LLM measures with a step of --max_num_tokens; its share is of what that leaves.
    assert long.used_bytes <= 0.85 * long.request.total_bytes
    assert short.kv_cache_bytes - long.kv_cache_bytes == pytest.approx(
        long.stage.activation - short.stage.activation, rel=0.01
    )


def test_a_length_that_nobody_stated_is_as_long_as_a_whole_prompt_has_room():
    tight, roomy = (sized(tag, "gemma-3-27b-it", runtime="tensorrt-llm") for tag in ("h100-pcie", "h200"))
    assert tight.fits
    assert roomy.fits
    assert tight.max_model_len < roomy.max_model_len
    longer = sized("h100-pcie", "gemma-3-27b-it", runtime="tensorrt-llm", max_model_len=tight.max_model_len + 256)
    assert not longer.fits


def test_a_whole_prompt_without_room_is_refused_with_what_would_fit():
    asked = request("h100-pcie", "gemma-3-27b-it", runtime="tensorrt-llm", max_model_len=104_857)
    planned = sized("h100-pcie", "gemma-3-27b-it", runtime="tensorrt-llm", max_model_len=104_857)
    assert not planned.fits
    assert planned.short.endswith(f"a step holds a whole prompt: {planned.whole_prompts}")
    offered = [entry.change[0][0] for entry in alternatives(asked, CATALOG)]
    assert {"max_model_len", "gpus"} <= {*offered}


def test_a_step_that_was_stated_too_short_is_refused_with_what_would_do():
    settings = {"runtime": "tensorrt-llm", "max_model_len": 16384}
    said = impossible("h200", "gemma-3-12b-it", batched_tokens=8192, **settings)
    assert said.startswith("max_num_batched_tokens 8192 is less than max_model_len 16384")
    assert said.endswith("leave it out, or state max_model_len 8192")
    assert sized("h200", "gemma-3-12b-it", batched_tokens=16384, **settings).max_num_batched_tokens == 16384
    # In chunks it is nobody's loss.
    assert sized("h200", "qwen3-8b", batched_tokens=2048, **settings).max_num_batched_tokens == 2048


@pytest.mark.parametrize(("version", "told"), [("0.8.5", True), ("0.10.1", True), ("0.10.2", False), ("0.19.1", False)])
def test_the_old_vllm_is_told_not_to_chunk_where_it_could_not(version, told):
    planned = sized("t4", "qwen2.5-7b-instruct", version=version, gpus=2, quantization="awq")
    (word,) = Options(CATALOG, "vllm", version).words("chunked_prefill_off")
    assert (word in argv(planned, Endpoint("chat", "/srv/models/chat"))) is told
    # It ends where a step has fewer tokens than the longest prompt and prompts are not cut.
    assert not told or planned.max_num_batched_tokens >= planned.max_model_len
