"""Numbers that bytes are counted with: what is counted at the number, and what one step beyond it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from rackserve.domain.shape import AttentionCache, LatentCache, Layer, Matrix, Shape, StateCache
from rackserve.planning import budget, quantize, sizing
from rackserve.planning.activation import graph_bytes
from rackserve.planning.engine_instance import EngineInstance
from rackserve.planning.gguf_instance import GgufInstance
from rackserve.planning.gguf_sizing import _instance
from rackserve.planning.gguf_split import layer_sums
from rackserve.planning.gguf_weights import MIXES, GgufWeights, _is_raised, _matrix_bits, layer_shares
from rackserve.planning.kv_cache import KvLayout, flat_layout, layout
from rackserve.planning.memory import Footprint, footprint
from rackserve.planning.parallel import decide, tensor_parallel_problem
from rackserve.planning.weights import padded_vocab_bytes, prepared_bytes
from tests.planning.making import cpu_host, plan
from tests.planning.making import planned as in_ram
from tests.planning.making import shape as small_shape
from tests.planning.sizing import request, shape, sized
from tests.planning.test_ram_engine import planned as vllm_in_ram

MIB = 1024**2
GIB = 1024**3


def instance(model: Any = None, tag: str = "h100-sxm-80gb", **changes: Any) -> EngineInstance:
    asked = request(tag, model, **changes)
    assert asked.engine is not None
    choice = quantize.as_stored(asked.shape, asked.gpu)
    tier = budget.tiers(asked.engine, asked.gpu, asked.total_bytes)[0]
    built = sizing._built(asked, asked.engine, choice, tier)  # type: ignore[arg-type]
    assert isinstance(built, EngineInstance), built
    return built


# a GPU


def test_half_a_percent_of_a_gpu_is_left_alone():
    built = instance(total_mib=100_000)
    needed = built.needed(built.layouts[0], 8192)
    at = replace(built.stages[0], kv=needed + 500 * MIB)
    assert replace(built, stages=(at,)).missing(8192) == 0
    assert replace(built, stages=(replace(at, kv=at.kv - 1),)).missing(8192) == 1


@pytest.mark.parametrize(
    ("seqs", "mib"),
    # 50 of 51 sizes are captured up to 510 sequences at once, all of them from 512 on.
    [(255, 100 + 51 * 10 * 50 / 51), (256, 100 + 51 * 10), (1024, 100 + 51 * 10)],
)
def test_graphs_take_a_layers_share_of_51_sizes(seqs, mib):
    engine: Any = SimpleNamespace(graph_mib=100, graph_layer_mib=10)
    assert graph_bytes(shape(), engine, 51, seqs) == mib * MIB


def test_graphs_of_experts_take_1_9_times_those_of_dense_layers():
    engine: Any = SimpleNamespace(graph_mib=0, graph_layer_mib=10)
    experts = request(model="gpt-oss-20b").shape
    assert graph_bytes(experts, engine, 10, 512) == 190 * MIB
    # Measured for 24 to 27 layers of experts: 1.10 to 1.57 GiB, of which no estimate is below.
    facts = request(model="deepseek-v2-lite").engine
    assert facts is not None
    assert 1.2 < graph_bytes(experts, facts, 27, 512) / GIB < 1.3


# blocks of a KV cache


def blocks(of: KvLayout, tokens: int) -> int:
    return of.blocks_per_request(tokens, 0)


@pytest.mark.parametrize(("tokens", "count"), [(64, 1), (65, 2), (128, 2), (129, 3)])
def test_a_block_of_latents_has_64_tokens(tokens, count):
    plan = layout([LatentCache(576, 64)], 1, 2)
    assert blocks(plan, tokens) == count
    assert plan.block_bytes == 64 * 576 * 2


@pytest.mark.parametrize(
    ("runtime", "tokens", "count"),
    [("sglang", 1, 1), ("sglang", 2, 2), ("tensorrt-llm", 32, 1), ("tensorrt-llm", 33, 2)],
)
def test_pages_of_the_other_engines_have_1_and_32_tokens(runtime, tokens, count):
    assert blocks(flat_layout([AttentionCache(8, 128, 128)], 1, 2, runtime), tokens) == count


@pytest.mark.parametrize(("kind", "states"), [("mamba2", 3), ("gdn", 2)])
def test_mamba_2_keeps_one_more_state_for_a_checkpoint(kind, states):
    plan = layout([StateCache(conv=3 * 1024, ssm=64 * 64, kind=kind)], 1, 2)
    assert blocks(plan, 1) == blocks(plan, 100_000) == states


@pytest.mark.parametrize(
    ("latents", "block"),
    # A state of 4 bytes a float is as large as this many latents of 1152 bytes.
    [(128, 128), (129, 256), (256, 256), (257, 384)],
)
def test_blocks_of_latents_beside_states_come_in_steps_of_128(latents, block):
    state = StateCache(conv=0, ssm=latents * 1152 // 4, kind="kda")
    plan = layout([LatentCache(576, 64), state], 1, 2)
    assert {spec.block for spec in plan.groups} == {block}


def test_most_sequences_are_whole_eights_that_the_cache_has_states_for():
    # Qwen 3.5 27B on a card of 80 GB has no states for as many sequences as vLLM would take.
    found = sized("h100-sxm-80gb", "qwen3.5-27b", quantization="none")
    assert found.batch_reason.startswith("no more sequences than the cache has blocks")

    def serves(seqs: int) -> bool:
        asked = replace(found.request, concurrency=None)
        assert asked.engine is not None
        tier = budget.tiers(asked.engine, asked.gpu, asked.total_bytes)[0].model_copy(update={"seqs": seqs})
        choice = quantize.asked_for("none", asked.shape, asked.gpu, asked.offered, converts=False)
        built = sizing.build(asked, asked.engine, choice, tier)  # type: ignore[arg-type]
        return sizing._has_states(built) and built.missing(found.max_model_len) <= 0  # type: ignore[arg-type]

    assert found.max_num_seqs == max(seqs for seqs in range(8, 257, 8) if serves(seqs))


# weights


@pytest.mark.parametrize(("vocab", "rows"), [(64, 64), (65, 128), (128, 128)])
def test_a_vocabulary_is_padded_to_a_multiple_of_64(vocab, rows):
    assert padded_vocab_bytes(Matrix("embed", vocab, 10), 1, 2) == rows * 10 * 2


@pytest.mark.parametrize(("vocab", "able"), [(1984, False), (1985, True)])
def test_a_split_has_to_divide_the_padded_vocabulary(vocab, able):
    # 31 and 32 times 64: 128 divides the latter alone.
    model = shape(vocab_size=vocab, num_attention_heads=128, num_key_value_heads=128, hidden_size=16384)
    assert (tensor_parallel_problem(model, 128) == "") is able


def test_the_halves_of_an_absorbed_projection_are_kept_in_16_bits():
    layer = Layer((Matrix("self_attn.kv_b_proj", 1000, 512),))
    assert prepared_bytes(layer, "", 1, 2) == 1000 * 512 * 2
    assert prepared_bytes(layer, "fp8", 1, 2) == 1000 * 512 * 2


@pytest.mark.parametrize(
    ("split", "rows", "columns", "padded"),
    # Of the first matrix both halves are padded to 128 rows and to 256 columns, of the second rows to 256.
    [
        ("column", 256, 256, (256, 256)),
        ("column", 258, 256, (512, 256)),
        ("column", 256, 288, (256, 512)),
        ("row", 256, 128, (256, 128)),
        ("row", 257, 128, (512, 128)),
        ("row", 256, 160, (256, 256)),
    ],
)
def test_mxfp4_experts_are_padded_to_128_and_256(split, rows, columns, padded):
    layer = Layer((Matrix("experts.w", rows, columns, split, count=4, stored="mxfp4"),))
    bytes_of = [4 * height * width * 17 // 32 for height, width in ((rows, columns), padded)]
    assert prepared_bytes(layer, "", 1, 2) == bytes_of[1] - bytes_of[0]


# llama.cpp


@pytest.mark.parametrize(("columns", "bits"), [(256, 4.87), (512, 4.87), (128, 5.8), (384, 5.8), (255, 5.8)])
def test_blocks_of_256_divide_the_columns_or_another_type_stands_in(columns, bits):
    assert _matrix_bits(Matrix("q_proj", 10, columns), MIXES["Q4_K_M"]) == 10 * columns * bits


def test_mxfp4_takes_17_bytes_for_32_weights():
    experts = Matrix("experts.w", 32, 256, count=2, stored="mxfp4")
    assert _matrix_bits(experts, MIXES["Q4_K_M"]) / 8 == 2 * 32 * 256 * 17 / 32


def uneven(columns: int) -> Shape:
    """Two layers of one matrix with this many columns, of which the second one is raised to Q6_K."""
    layers = tuple(Layer((Matrix("v_proj", 10, columns),)) for _ in range(2))
    return replace(shape(), layers=layers)


@pytest.mark.parametrize(
    ("quantization", "columns", "raised", "usual"),
    # Bits of Q6_K and Q4_K or Q5_K, and of what llama-quantize takes for them: Q8_0, Q5_0 and Q5_1.
    [
        ("Q4_K_M", 256, 6.5625, 4.5),
        ("Q4_K_M", 128, 8.5, 5.5),
        ("Q5_K_M", 256, 6.5625, 5.5),
        ("Q5_K_M", 128, 8.5, 6.0),
    ],
)
def test_types_that_stand_in_have_bits_of_their_own(quantization, columns, raised, usual):
    shares = layer_shares(uneven(columns), quantization)
    assert shares[1] / shares[0] == pytest.approx(raised / usual)


def test_the_first_and_last_eighth_and_every_third_layer_between_are_raised():
    assert [index for index in range(16) if _is_raised(index, 16)] == [0, 1, 4, 7, 10, 13, 14, 15]
    assert [index for index in range(15) if _is_raised(index, 15)] == [0, 3, 6, 9, 12, 13, 14]


def test_three_tenths_of_a_layer_are_raised_where_a_header_lists_no_matrices():
    header = replace(shape(), layers=tuple(Layer(()) for _ in range(8)))
    shares = layer_shares(header, "Q4_K_M")
    assert shares[0] / shares[1] == pytest.approx((4.5 * 0.7 + 6.5625 * 0.3) / 4.5)


def gguf(gpus: int) -> GgufInstance:
    asked = request("h200", "llama-3.1-8b-instruct", runtime="llama.cpp", gpus=gpus, quantization="Q4_K_M")
    found = _instance(asked, "Q4_K_M")
    assert isinstance(found, GgufInstance), found
    return found


def test_several_gpus_work_on_four_batches_each_with_a_mask_of_its_own():
    # A half for each of 8192 cells and of the 512 tokens of a batch.
    assert gguf(2).compute(8192) - gguf(1).compute(8192) == 3 * 8192 * 512 * 2


def test_a_process_takes_640_mib_of_a_gpu_before_it_allocates_anything():
    found = sized("h200", "llama-3.1-8b-instruct", runtime="llama.cpp", quantization="Q4_K_M", ceiling=0.5)
    assert found.stage.overhead == 640 * MIB
    assert gguf(1).allowed == int(gguf(1).request.total_bytes * 0.85) - 640 * MIB


def test_a_process_takes_64_mib_of_ram():
    model = small_shape(layers=1)
    need = footprint(model, 10 * MIB, kv_cache_dtype="f16", context_per_slot=256, slots=1)
    assert need.total_mib - need.weights_mib - need.kv_cache_mib - need.compute_mib == 64
    assert Footprint(1, 2, 3).total_mib == 6 + 64
    held = gguf(1).weights
    left = GgufWeights(0, held.embedding, held.output, tied=False)
    beside = replace(gguf(1), weights=left, sums=layer_sums(gguf(1).request.shape, "Q4_K_M", left))
    assert beside.host_bytes(8192, beside.layers) == held.embedding + 64 * MIB


def test_llama_server_computes_512_tokens_at_once():
    served = in_ram(65536, max_model_len=4096)
    words = served.launch.argv
    assert words[words.index("--ubatch-size") + 1] == "512"
    one, more = (in_ram(65536, max_model_len=length).footprint for length in (4096, 8192))
    # Masks alone grow with the length: a half for each of 4096 more cells and of the 512 tokens.
    assert more.compute_mib - one.compute_mib == 4096 * 512 * 2 // MIB


def test_a_share_of_ram_is_stated_with_four_digits_and_rounded_up():
    (chat,) = vllm_in_ram(65536).gpu_services
    share = chat.sizing.utilization
    needed = (chat.sizing.stage.peak + chat.sizing.needed_bytes) / chat.sizing.stage.total
    assert share == round(share, 4)
    assert 0 <= share - needed - 0.005 < 0.0001


def test_85_percent_is_planned_with_where_nobody_states_another():
    total = request().total_bytes
    budget_of = sized(quantization="none", max_model_len=8192)
    assert budget_of.used_bytes == pytest.approx(0.85 * total, rel=1e-3)
    assert plan(cpu_host(10_000, [])).budget_mib == 8500
    assert (request().ceiling, request().host_ceiling) == (0.85, 0.85)


# GPUs of a host


@pytest.mark.parametrize(("gpus", "tensor", "pipeline"), [(8, 8, 1), (16, 8, 2)])
def test_a_host_has_8_gpus_where_nobody_said_how_many(gpus, tensor, pipeline):
    model = shape(num_attention_heads=64, num_key_value_heads=64)
    found = decide(model, gpus, None, None)
    assert not isinstance(found, str)
    assert (found.tensor, found.pipeline) == (tensor, pipeline)
    assert (request(gpus=gpus).host_gpus, request().hosts) == (8, 1)
