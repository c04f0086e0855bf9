"""Limits of what is believed of a model's files, and steps that sizes come in: at the number and one beyond it."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import pytest

from rackserve.catalog.architectures.config import Config
from rackserve.catalog.architectures.gemma_towers import gemma3_tower, gemma4_tower
from rackserve.catalog.architectures.module_names import acceptable
from rackserve.catalog.architectures.nas import _width
from rackserve.catalog.architectures.reader import read_config
from rackserve.catalog.gguf_header import GgufFacts
from rackserve.catalog.gguf_shape import shape_from_gguf
from rackserve.catalog.gguf_walk import Header, List, read_header
from rackserve.domain.errors import InputError
from rackserve.domain.shape import AttentionCache
from rackserve.domain.weight_format import FORMATS
from tests.planning.sizing import LLAMA_8B

UINT8, UINT32, STRING, ARRAY = 0, 4, 8, 9


# headers of GGUF files


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def walked(tmp_path: Path, *parts: bytes, tensors: int = 0, keys: int = 0) -> Header | str:
    """What a header with these parts comes to, or why it is refused."""
    path = tmp_path / "x.gguf"
    path.write_bytes(b"".join((b"GGUF", struct.pack("<IQQ", 3, tensors, keys), *parts)))
    try:
        return read_header(path)
    except InputError as error:
        return error.problems[0].message


@pytest.mark.parametrize("what", ["tensors", "keys"])
@pytest.mark.parametrize(("count", "believed"), [(65_536, True), (65_537, False)])
def test_65536_entries_are_believed(tmp_path, what, count, believed):
    found = walked(tmp_path, **{what: count})
    # Of those that are believed none is there.
    assert str(found).startswith("ends within") is believed
    assert (f"states {count} {what}" in str(found)) is not believed


@pytest.mark.parametrize(("count", "believed"), [(4_000_000, True), (4_000_001, False)])
def test_4000000_elements_of_an_array_are_believed(tmp_path, count, believed):
    found = walked(tmp_path, text(b"a"), struct.pack("<IIQ", ARRAY, UINT8, count), bytes(count), keys=1)
    assert isinstance(found, Header) is believed


@pytest.mark.parametrize(("layers", "kept"), [(4096, True), (4097, False)])
def test_numbers_of_4096_layers_are_kept(tmp_path, layers, kept):
    found = walked(tmp_path, text(b"a"), struct.pack("<IIQ", ARRAY, UINT8, layers), bytes(layers), keys=1)
    assert isinstance(found, Header)
    value = found.values["a"]
    assert isinstance(value, List)
    assert (value.length, len(value.numbers)) == (layers, layers if kept else 0)


@pytest.mark.parametrize(("dimensions", "told"), [(4, False), (5, True)])
def test_a_tensor_has_4_dimensions_at_most(tmp_path, dimensions, told):
    tensor = struct.pack(f"<I{dimensions}QIQ", dimensions, *(1,) * dimensions, 0, 0)
    found = walked(tmp_path, text(b"t"), tensor, bytes(64), tensors=1)
    assert isinstance(found, str) is told


@pytest.mark.parametrize(("value", "believed"), [(2**31 - 1, True), (2**31, False)])
def test_a_length_is_a_signed_number_of_32_bits(tmp_path, value, believed):
    found = walked(tmp_path, text(b"a"), struct.pack("<II", UINT32, value), keys=1)
    assert isinstance(found, Header)
    with contextlib.nullcontext() if believed else pytest.raises(InputError, match="the most 2147483647"):
        assert found.integer("a") == value


def test_256_bytes_of_a_text_are_kept(tmp_path):
    found = walked(tmp_path, text(b"a"), struct.pack("<I", STRING), text(bytes(range(97, 123)) * 10), keys=1)
    assert isinstance(found, Header)
    assert found.values["a"] == ("abcdefghijklmnopqrstuvwxyz" * 10)[:256]


def gguf_shape(architecture: str, layers: int = 12, window: int | None = 512, **numbers: int) -> list[Any]:
    facts = GgufFacts(
        architecture=architecture,
        layers=layers,
        context_length=8192,
        embedding_length=1024,
        heads=8,
        kv_heads=(8,) * layers,
        key_length=128,
        value_length=128,
        vocab_size=1000,
        tensor_bytes=10**9,
        file_type="Q8_0",
        sliding_window=window,
        embedding_bytes=10**6,
        output_bytes=10**6,
        numbers={"feed_forward_length": 4096, **numbers},
    )
    return list(shape_from_gguf(facts, "test").caches)


@pytest.mark.parametrize(("architecture", "period"), [("gpt-oss", 2), ("gemma2", 2), ("cohere2", 4), ("gemma3", 6)])
def test_of_so_many_layers_the_last_one_sees_everything(architecture, period):
    whole = [
        index
        for index, cache in enumerate(gguf_shape(architecture))
        if isinstance(cache, AttentionCache) and cache.window is None
    ]
    assert whole == list(range(period - 1, 12, period))


# config.json


@pytest.mark.parametrize(("value", "problems"), [(2**40, 0), (2**40 + 1, 1)])
def test_numbers_to_2_to_the_40_are_believed(value, problems):
    config = Config({"a": value, "b": [value]}, "test")
    config.integer("a")
    assert len(config.problems) == problems
    config.integers("b")
    assert len(config.problems) == 2 * problems


@pytest.mark.parametrize(("length", "taken"), [(300, True), (301, False)])
def test_an_expression_has_300_characters_at_most(length, taken):
    assert acceptable("a" * length) is taken


@pytest.mark.parametrize(("repeats", "taken"), [(4, True), (5, False)])
def test_an_expression_repeats_4_times_at_most(repeats, taken):
    assert acceptable("a*" * repeats) is taken


@pytest.mark.parametrize(
    ("mult", "width"),
    # 2/3 of 3 x 128 x the factor, in steps of 256.
    [(1.0, 256), (2.0, 512), (2.01, 768)],
)
def test_blocks_found_by_search_come_in_steps_of_256(mult, width):
    assert _width(Config({"ffn_mult": mult}, "test"), 384) == width


VISION = {
    "hidden_size": 1152,
    "num_hidden_layers": 1,
    "num_attention_heads": 16,
    "num_channels": 3,
    "patch_size": 14,
    "image_size": 896,
    "position_embedding_size": 10,
}


@pytest.mark.parametrize("tower", [gemma3_tower, gemma4_tower])
@pytest.mark.parametrize(("intermediate", "some"), [(64, True), (96, False), (128, True), (192, True)])
def test_a_tower_is_quantized_where_64_divides_its_widths(tower, intermediate, some):
    matrices = tower(Config({}, "test"), Config(VISION | {"intermediate_size": intermediate}, "test"), 2560)
    wide = [matrix for matrix in matrices if intermediate in {matrix.rows, matrix.columns} and matrix.columns > 1]
    assert wide
    assert {matrix.linear for matrix in wide} == {some}


@pytest.mark.parametrize(
    ("family", "period"), [("gemma3_text", 6), ("cohere2", 4)], ids=["every sixth", "every fourth"]
)
def test_a_pattern_that_nobody_states_is_the_familys_own(family, period):
    values = LLAMA_8B | {"model_type": family, "sliding_window": 512, "num_hidden_layers": 12, "head_dim": 128}
    found = read_config(values, "test")
    whole = [index for index, cache in enumerate(found.caches) if not getattr(cache, "window", None)]
    assert whole == list(range(period - 1, 12, period))


@pytest.mark.parametrize(
    ("name", "bits"),
    # Elements of 4 or 8 bits and a scale for each group: of 16 bits for 128 or 32 weights, and with a zero of 4 bits
    # for AWQ; of 8 bits for 16 (NVFP4) or 32 (MXFP4).
    [
        ("bf16", 16),
        ("fp32", 32),
        ("int4-g128", 4 + 16 / 128),
        ("int4-g32", 4 + 16 / 32),
        ("awq", 4 + 20 / 128),
        ("nvfp4", 4 + 8 / 16),
        ("mxfp4", 4 + 8 / 32),
    ],
)
def test_a_format_takes_its_bits_and_its_scales(name, bits):
    taken = FORMATS[name].matrix_bytes(4096, 4096) * 8 / 4096**2
    assert taken == pytest.approx(bits, rel=1e-3)
