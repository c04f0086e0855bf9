"""The engine's blocks for every kind of layer: numbers that vLLM 0.32's own code gave (bench/accuracy/results)."""

from __future__ import annotations

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.catalog.shapes import shape_of
from rackserve.domain.shape import AttentionCache, LatentCache, StateCache
from rackserve.planning.kv_cache import flat_layout, layout

GIB = 1024**3
FULL = AttentionCache(8, 128, 128)


def of(model: str, tensor_parallel: int = 1, item_bytes: float = 2):
    return layout(shape_of(load_catalog().models[model]).caches, tensor_parallel, item_bytes)


@pytest.mark.parametrize(
    ("model", "blocks", "tokens"),
    [
        # 10 GiB, requests of 8192 tokens, steps of 8192 with a second one in flight.
        ("llama-3.1-8b-instruct", 5120, 81_920),
        # Windowed layers of 16 tokens a block beside full ones of 32, in groups of five layers.
        ("gemma-4-26b-a4b-it", 16_384, 47_578),
        # Blocks of 784 tokens hold a recurrent state of 3.2 MB each.
        ("qwen3.5-27b", 208, 100_231),
        ("gpt-oss-20b", 27_306, 218_234),
        ("llama-4-scout-17b-16e-instruct", 13_653, 54_612),
    ],
)
def test_blocks_and_tokens_are_those_of_the_engine(model, blocks, tokens):
    plan = of(model)
    assert plan.blocks(10 * GIB) == blocks
    assert plan.tokens(10 * GIB, 8192, 2 * 8192) == pytest.approx(tokens, rel=2e-4)


def test_kv_heads_are_repeated_where_there_are_more_gpus_than_heads():
    assert layout([FULL], 8, 2).block_bytes == layout([FULL], 16, 2).block_bytes == 16 * 256 * 2


def test_a_latent_is_on_every_gpu_whole():
    # DeepSeek V3: 61 layers x 576 elements x 2 bytes are 70,272 bytes a token, whatever the tensor parallelism.
    plan = layout([LatentCache(576, 64)] * 61, 8, 2)
    assert plan.bytes_per_token() == 70_272


def test_sparse_attention_in_fp8_keeps_656_bytes_and_its_indexer_132():
    plan = layout([LatentCache(576, 64, indexer=132, sparse=True)], 1, 1)
    assert plan.bytes_per_token() == 656 + 132


def test_a_window_needs_no_more_for_a_longer_request():
    windowed = [AttentionCache(8, 128, 128, window=1024)]
    plan = layout(windowed, 1, 2)
    assert plan.bytes_for(1, 30_000, 2048) == plan.bytes_for(1, 100_000, 2048)
    assert plan.bytes_per_token() == 0


def test_the_block_that_the_pool_never_gives_out_is_paid_for():
    plan = layout([FULL], 1, 2)
    assert plan.bytes_for(1, 16, 0) == 2 * plan.block_bytes


def test_recurrent_states_are_divided_by_tensor_parallelism():
    state = StateCache(conv=3 * 10240, ssm=48 * 128 * 128)
    assert layout([state], 2, 2).block_bytes == layout([state], 1, 2).block_bytes / 2


def test_a_model_without_a_cache_needs_none():
    assert layout([], 1, 2).bytes_for(1, 8192, 0) == 0


def test_one_pool_for_all_layers_counts_windowed_ones_in_part_or_in_full():
    mixed = [FULL, AttentionCache(8, 128, 128, window=512)]
    assert flat_layout(mixed, 1, 2, "sglang").bytes_per_token() == pytest.approx(1.8 * 4096, abs=1)
    assert flat_layout(mixed, 1, 2, "tensorrt-llm").bytes_per_token() == 2 * 4096
