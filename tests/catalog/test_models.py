"""The model catalogue: every model that has to be there, and its facts against what its makers publish."""

from __future__ import annotations

import datetime as dt

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.catalog.shapes import shape_of
from rackserve.domain.model import LanguageModel
from rackserve.planning.quantize import LABELS

MODELS = tuple(load_catalog().models.values())

REQUIRED = (
    *("llama-3.3-70b-instruct", "qwen3-32b", "qwen3-30b-a3b", "qwen3-235b-a22b"),
    *("command-r-plus-08-2024", "command-r-35b", "aya-expanse-32b", "gemma-4-31b-it"),
    *("deepseek-v3", "deepseek-v4-pro", "deepseek-v4-flash"),
)
# Parameters as the hub counts a checkpoint's weights, or as its card says where that is a round figure; and how many
# layers for multi-token prediction are among them, which engines leave out unless speculation is asked for.
PUBLISHED: dict[str, tuple[float, int]] = {
    "aya-expanse-32b": (32_296_476_672, 0),
    "command-r-35b": (34_980_831_232, 0),
    "command-r-plus-08-2024": (103_810_674_688, 0),
    "deepseek-v3": (684_531_386_000, 1),
    "deepseek-v4-flash": (304_180_418_494, 3),
    "deepseek-v4-pro": (1_650_497_936_906, 3),
    "gemma-3-12b-it": (12_187_325_040, 0),
    "gemma-3-27b-it": (27_432_406_640, 0),
    "gemma-4-26b-a4b-it": (25_805_933_872, 0),
    "gemma-4-31b-it": (31_273_088_876, 0),
    "glm-4.5-air": (106e9, 0),
    "gpt-oss-120b": (116.83e9, 0),
    "gpt-oss-20b": (20.91e9, 0),
    "kimi-k2-instruct": (1_026_408_235_864, 0),
    "llama-3.1-8b-instruct": (8_030_261_248, 0),
    "llama-3.2-3b-instruct": (3_212_749_824, 0),
    "llama-3.3-70b-instruct": (70_553_706_496, 0),
    "llama-4-scout-17b-16e-instruct": (108_641_793_536, 0),
    "mistral-7b-instruct-v0.3": (7_248_023_552, 0),
    "mistral-small-24b-instruct-2501": (23_572_403_200, 0),
    "mistral-small-3.1-24b-instruct-2503": (24_011_361_280, 0),
    "mistral-small-3.2-24b-instruct-2506": (24_011_361_280, 0),
    "mixtral-8x7b-instruct-v0.1": (46_702_792_704, 0),
    "phi-4": (14_659_507_200, 0),
    "qwen2.5-0.5b-instruct": (494_032_768, 0),
    "qwen2.5-14b-instruct": (14_770_033_664, 0),
    "qwen2.5-32b-instruct": (32_763_876_352, 0),
    "qwen2.5-72b-instruct": (72_706_203_648, 0),
    "qwen2.5-7b-instruct": (7_615_616_512, 0),
    # The hub counts its tied head a second time (0.75B).
    "qwen3-0.6b": (0.6e9, 0),
    "qwen3-14b": (14_768_307_200, 0),
    "qwen3-235b-a22b": (235_093_634_560, 0),
    "qwen3-235b-a22b-instruct-2507": (235_093_634_560, 0),
    "qwen3-30b-a3b": (30_532_122_624, 0),
    "qwen3-30b-a3b-instruct-2507": (30_532_122_624, 0),
    "qwen3-32b": (32_762_123_264, 0),
    "qwen3-4b": (4_022_468_096, 0),
    "qwen3-4b-instruct-2507": (4_022_468_096, 0),
    "qwen3-8b": (8_190_735_360, 0),
    "qwen3-coder-30b-a3b-instruct": (30_532_122_624, 0),
    "qwen3-next-80b-a3b-instruct": (81_324_862_720, 1),
    "qwen3.5-27b": (27_781_427_952, 1),
    "qwen3.5-35b-a3b": (35_951_822_704, 1),
    "qwen3.6-27b": (27_781_427_952, 1),
    "qwen3.6-35b-a3b": (35_951_822_704, 1),
    "smollm2-135m-instruct": (134_515_008, 0),
}
# Billions of parameters that one token passes through, by the model cards, and how far rounding may have moved them.
# Qwen counts the embedding, which is only looked up.
ACTIVE = {
    "deepseek-v3": (37, 0.5),
    "deepseek-v4-flash": (13, 0.5),
    "deepseek-v4-pro": (49, 0.5),
    "gpt-oss-120b": (5.1, 0.1),
    "gpt-oss-20b": (3.6, 0.1),
    "kimi-k2-instruct": (32, 0.5),
    "llama-4-scout-17b-16e-instruct": (17, 0.5),
    "qwen3-235b-a22b": (22, 0.5),
    "qwen3-30b-a3b": (3.3, 0.3),
}
THOUSANDS_OF_TOKENS = {
    8: ("smollm2-135m-instruct", "aya-expanse-32b"),
    16: ("phi-4",),
    32: (
        *("qwen2.5-0.5b-instruct", "qwen2.5-7b-instruct", "qwen2.5-14b-instruct"),
        *("qwen2.5-32b-instruct", "qwen2.5-72b-instruct"),
        *("mistral-7b-instruct-v0.3", "mistral-small-24b-instruct-2501", "mixtral-8x7b-instruct-v0.1"),
    ),
    40: (
        *("qwen3-0.6b", "qwen3-4b", "qwen3-8b", "qwen3-14b", "qwen3-32b"),
        *("qwen3-30b-a3b", "qwen3-235b-a22b"),
    ),
    128: (
        *("llama-3.1-8b-instruct", "llama-3.2-3b-instruct", "llama-3.3-70b-instruct"),
        *("command-r-plus-08-2024", "command-r-35b", "gemma-3-12b-it", "gemma-3-27b-it"),
        *("mistral-small-3.1-24b-instruct-2503", "mistral-small-3.2-24b-instruct-2506"),
        *("gpt-oss-20b", "gpt-oss-120b", "glm-4.5-air", "kimi-k2-instruct"),
    ),
    160: ("deepseek-v3",),
    256: (
        *("qwen3-4b-instruct-2507", "qwen3-30b-a3b-instruct-2507", "qwen3-235b-a22b-instruct-2507"),
        *("qwen3-coder-30b-a3b-instruct", "qwen3-next-80b-a3b-instruct"),
        *("qwen3.5-27b", "qwen3.5-35b-a3b", "qwen3.6-27b", "qwen3.6-35b-a3b"),
        *("gemma-4-31b-it", "gemma-4-26b-a4b-it"),
    ),
    1024: ("deepseek-v4-pro", "deepseek-v4-flash"),
    10240: ("llama-4-scout-17b-16e-instruct",),
}
CONTEXT = {name: 1024 * thousands for thousands, names in THOUSANDS_OF_TOKENS.items() for name in names}
PUBLISHED_QUANTIZED = {
    "deepseek-v3": "fp8-block",
    "deepseek-v4-flash": "fp8-block",
    "deepseek-v4-pro": "fp8-block",
    "gpt-oss-120b": "mxfp4",
    "gpt-oss-20b": "mxfp4",
    "kimi-k2-instruct": "fp8-block",
}
MULTIMODAL = ("gemma-3-", "gemma-4-", "llama-4-", "mistral-small-3.", "qwen3.5-", "qwen3.6-")

every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)


def model_of(name: str) -> LanguageModel:
    return load_catalog().models[name]


# which there are


@pytest.mark.parametrize("name", REQUIRED)
def test_a_model_that_has_to_be_served_is_listed(name):
    assert name in load_catalog().models


def test_every_model_is_held_against_published_figures():
    assert {model.name for model in MODELS} == set(PUBLISHED) == set(CONTEXT)


# what they are


@every_model
def test_parameters_are_as_many_as_published(model):
    shape = shape_of(model)
    published, predicting = PUBLISHED[model.name]
    counted = shape.parameters + predicting * sum(matrix.elements for matrix in shape.layers[-1].matrices)
    assert counted == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("name", ACTIVE)
def test_parameters_that_a_token_passes_through_are_as_many_as_published(name):
    published, rounding = ACTIVE[name]
    assert shape_of(model_of(name)).active_parameters / 1e9 == pytest.approx(published, abs=rounding)


@every_model
def test_the_context_is_as_long_as_published(model):
    assert shape_of(model).context_length == CONTEXT[model.name]


@pytest.mark.parametrize(
    ("name", "bytes_per_token"),
    [
        ("llama-3.3-70b-instruct", 80 * 2 * 8 * 128 * 2),
        ("qwen3-235b-a22b", 94 * 2 * 4 * 128 * 2),
        ("command-r-plus-08-2024", 64 * 2 * 8 * 128 * 2),
        ("command-r-35b", 40 * 2 * 64 * 128 * 2),
        ("aya-expanse-32b", 40 * 2 * 8 * 128 * 2),
    ],
)
def test_a_token_takes_the_cache_that_its_heads_need(name, bytes_per_token):
    caches = [cache for layer in shape_of(model_of(name)).layers for cache in layer.caches]
    assert sum(2 * cache.kv_heads * (cache.key_length + cache.value_length) for cache in caches) == bytes_per_token


@pytest.mark.parametrize(
    ("name", "full", "window"),
    [
        ("gemma-3-12b-it", 8, 1024),
        ("gemma-3-27b-it", 10, 1024),
        ("gemma-4-31b-it", 10, 1024),
        ("gemma-4-26b-a4b-it", 5, 1024),
        ("gpt-oss-20b", 12, 128),
        ("gpt-oss-120b", 18, 128),
    ],
)
def test_layers_with_a_window_are_told_from_the_others(name, full, window):
    caches = [cache for layer in shape_of(model_of(name)).layers for cache in layer.caches]
    assert sum(cache.window is None for cache in caches) == full
    assert {cache.window for cache in caches} == {None, window}


@pytest.mark.parametrize(
    ("name", "full"),
    [("qwen3-next-80b-a3b-instruct", 12), ("qwen3.5-27b", 16), ("qwen3.6-35b-a3b", 10)],
)
def test_recurrent_layers_are_told_from_the_others(name, full):
    kinds = [type(layer.caches[0]).__name__ for layer in shape_of(model_of(name)).layers]
    assert kinds.count("AttentionCache") == full
    assert kinds.count("StateCache") == len(kinds) - full


@every_model
def test_models_that_see_have_a_tower_and_the_others_have_none(model):
    assert bool(shape_of(model).extras) == model.name.startswith(MULTIMODAL)


@every_model
def test_only_what_is_published_quantized_has_it_in_its_config(model):
    table = model.config.get("quantization_config")
    assert (table is not None) == (model.name in PUBLISHED_QUANTIZED)
    assert shape_of(model).quantization == PUBLISHED_QUANTIZED.get(model.name, "")


@pytest.mark.parametrize(
    ("name", "gib"),
    [
        # The checkpoint's size by OpenAI's model card.
        ("gpt-oss-20b", 12.8),
        ("gpt-oss-120b", 60.8),
    ],
)
def test_experts_in_four_bits_are_stored_so(name, gib):
    shape = shape_of(model_of(name))
    stored = [matrix for layer in shape.layers for matrix in layer.matrices]
    four_bits = sum(matrix.elements for matrix in stored if matrix.stored == "mxfp4")
    weights = four_bits * 17 / 32 + (shape.parameters - four_bits) * 2
    assert weights / 2**30 == pytest.approx(gib, rel=0.02)


# where they come from


@every_model
def test_facts_have_a_source_a_date_and_a_licence(model):
    assert model.source
    assert model.license
    assert dt.date.fromisoformat(model.date).year == 2026


@every_model
def test_a_checkpoint_is_in_a_format_that_is_known(model):
    for checkpoint in model.checkpoints:
        assert checkpoint.quantization == "none" or checkpoint.quantization in LABELS


@every_model
def test_no_format_has_two_checkpoints(model):
    formats = [checkpoint.quantization for checkpoint in model.checkpoints]
    assert len(formats) == len(set(formats))


@every_model
def test_unquantized_models_have_an_unquantized_checkpoint(model):
    quantized = PUBLISHED_QUANTIZED.get(model.name)
    expected = quantized or "none"
    assert model.checkpoints[0].quantization == expected
    if quantized:
        assert [checkpoint.repo for checkpoint in model.checkpoints] == [model.repo]
    elif not model.gguf:
        assert model.checkpoints[0].repo == model.repo


@every_model
def test_every_other_checkpoint_is_of_the_same_model(model):
    base = model.checkpoints[0].repo.split("/")[1].lower().removeprefix("meta-").removesuffix("-it")
    for checkpoint in model.checkpoints:
        assert base in checkpoint.repo.lower()
