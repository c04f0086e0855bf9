"""Facts come out of a good header; of a bad one comes an InputError that names file and key, and nothing else."""

import contextlib
import struct
import time
import tracemalloc

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from rackserve.catalog.gguf_header import GgufFacts, read_gguf
from rackserve.domain.errors import InputError
from rackserve.lab.tiny_model import write_tiny_gguf
from tests.examples import examples

# Header of the tiny model, in bytes, rounded up: damage behind it is damage to weights, which nobody reads here.
HEADER = 34_300
PLACES = st.integers(0, HEADER)
FUZZ = examples(400, HealthCheck.function_scoped_fixture)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_gguf(path)
    return path


@pytest.fixture(scope="module")
def scratch(tiny):
    """A copy of the tiny model to damage in place; each test puts back what it changes."""
    path = tiny.with_name("scratch.gguf")
    path.write_bytes(tiny.read_bytes())
    return path


@pytest.fixture
def write(tmp_path):
    """Write a small model; keyword `drop` leaves keys out and `add` is called with the writer."""

    def write(*, drop=(), add=lambda _writer: None, tensors=1):
        path = tmp_path / "made.gguf"
        writer = gguf.GGUFWriter(path, "qwen3")
        values = {
            "qwen3.block_count": 3,
            "qwen3.context_length": 40960,
            "qwen3.embedding_length": 1024,
            "qwen3.attention.head_count": 16,
            "qwen3.attention.head_count_kv": 8,
            "general.file_type": 15,
        }
        for key, value in values.items():
            if key not in drop:
                writer.add_uint32(key, value)
        if "tokenizer.ggml.tokens" not in drop:
            writer.add_token_list(["a", "b", "c"])
        add(writer)
        for index in range(tensors):
            writer.add_tensor(f"blk.{index}.weight", np.ones((2, 32), dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def refused(path):
    """The problem that reading `path` reports, which names the file."""
    with pytest.raises(InputError) as caught:
        read_gguf(path)
    (problem,) = caught.value.problems
    assert problem.where == str(path)
    return problem


def raw(path, *parts):
    path.write_bytes(b"".join(parts))
    return path


def text(value):
    return struct.pack("<Q", len(value)) + value


def start(tensors=0, keys=1, version=3):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def test_the_tiny_model(tiny):
    facts = read_gguf(tiny)
    assert facts.numbers["block_count"] == 4
    assert facts.numbers["attention.head_count_kv"] == 2
    assert facts == GgufFacts(
        architecture="llama",
        layers=4,
        context_length=8192,
        embedding_length=256,
        heads=4,
        kv_heads=(2, 2, 2, 2),
        key_length=64,
        value_length=64,
        vocab_size=1374,
        tensor_bytes=4_099_008,
        file_type="Q8_0",
        sliding_window=None,
        embedding_bytes=373_728,
        output_bytes=373_728,
        numbers=facts.numbers,
    )


def test_sizes_agree_with_the_reader_of_the_gguf_package(tiny):
    reader = gguf.GGUFReader(tiny)
    facts = read_gguf(tiny)
    assert facts.tensor_bytes == sum(tensor.n_bytes for tensor in reader.tensors)
    assert facts.vocab_size == len(reader.fields["tokenizer.ggml.tokens"].data)


def test_defaults_are_those_of_llama_cpp(write):
    facts = read_gguf(write(drop=["qwen3.attention.head_count_kv", "general.file_type"]))
    assert facts.kv_heads == (16, 16, 16)
    assert (facts.key_length, facts.value_length) == (64, 64)
    assert facts.sliding_window is None
    assert facts.file_type == "GUESSED"


def test_stated_values_win_over_defaults(write):
    def add(writer):
        writer.add_key_length(128)
        writer.add_value_length(96)
        writer.add_sliding_window(512)

    facts = read_gguf(write(add=add, tensors=3))
    assert (facts.key_length, facts.value_length, facts.sliding_window) == (128, 96, 512)
    assert facts.file_type == "Q4_K_M"
    assert facts.tensor_bytes == 3 * 2 * 32 * 4


def test_a_sliding_window_of_zero_is_none(write):
    assert read_gguf(write(add=lambda writer: writer.add_sliding_window(0))).sliding_window is None


def test_a_file_type_newer_than_the_package_is_not_an_error(write):
    path = write(drop=["general.file_type"], add=lambda writer: writer.add_file_type(9999))
    assert read_gguf(path).file_type == "UNKNOWN_9999"


def test_layers_may_differ(write):
    def add(writer):
        writer.add_head_count([16, 0, 8])
        writer.add_head_count_kv([4, 0, 2])

    facts = read_gguf(write(drop=["qwen3.attention.head_count", "qwen3.attention.head_count_kv"], add=add))
    assert facts.heads == 16
    assert facts.kv_heads == (4, 0, 2)


@pytest.mark.parametrize(
    "key",
    [
        "qwen3.block_count",
        "qwen3.context_length",
        "qwen3.embedding_length",
        "qwen3.attention.head_count",
        "tokenizer.ggml.tokens",
    ],
)
def test_a_missing_key_is_named(write, key):
    problem = refused(write(drop=[key]))
    assert (problem.key, problem.message) == (key, "is missing")


@pytest.mark.parametrize(
    ("key", "add", "message"),
    [
        ("qwen3.block_count", lambda w, k: w.add_uint32(k, 0), "is 0; the least is 1 and the most 4096"),
        ("qwen3.block_count", lambda w, k: w.add_uint32(k, 2**32 - 1), "is 4294967295"),
        ("qwen3.block_count", lambda w, k: w.add_string(k, "three"), "must be a whole number"),
        ("qwen3.block_count", lambda w, k: w.add_float32(k, 3.0), "must be a whole number"),
        ("qwen3.block_count", lambda w, k: w.add_bool(k, val=True), "must be a whole number"),
        ("qwen3.block_count", lambda w, k: w.add_array(k, [3, 3]), "must be a whole number"),
        ("qwen3.context_length", lambda w, k: w.add_uint64(k, 2**63), "is 9223372036854775808"),
        ("qwen3.context_length", lambda w, k: w.add_int32(k, -1), "is -1"),
        ("qwen3.attention.head_count", lambda w, k: w.add_uint32(k, 0), "is 0: a model without attention"),
        ("qwen3.attention.head_count", lambda w, k: w.add_uint32(k, 2048), "is 2048; the least is 0 and the most 1024"),
        ("qwen3.attention.head_count_kv", lambda w, k: w.add_uint32(k, 17), "is 17; the least is 0 and the most 16"),
        ("qwen3.attention.head_count_kv", lambda w, k: w.add_array(k, [8, 8]), "has 2 whole numbers for 3 layers"),
        ("qwen3.attention.head_count_kv", lambda w, k: w.add_array(k, [8.0, 8.0, 8.0]), "has 0 whole numbers"),
        ("qwen3.attention.key_length", lambda w, k: w.add_uint32(k, 0), "is 0"),
        ("tokenizer.ggml.tokens", lambda w, k: w.add_string(k, "a"), "must be a list"),
        ("general.alignment", lambda w, k: w.add_string(k, "a"), "must be a whole number"),
    ],
)
def test_an_absurd_value_is_named(write, key, add, message):
    problem = refused(write(drop=[key], add=lambda writer: add(writer, key)))
    assert problem.key == key
    assert problem.message.startswith(message)


def test_one_part_of_a_split_model_is_refused(write):
    problem = refused(write(add=lambda writer: writer.add_uint16("split.count", 3)))
    assert problem.key == "split.count"
    assert "--merge" in problem.hint


def test_a_file_without_weights_is_refused(write):
    assert refused(write(tensors=0)).message == "holds no weights"


@pytest.mark.parametrize(("name", "reason"), [("none.gguf", "No such file or directory"), (".", "Is a directory")])
def test_what_is_no_file_is_refused(tmp_path, name, reason):
    assert refused(tmp_path / name).message == f"cannot be read: {reason}"


def test_a_file_cut_within_its_weights_is_refused(tiny):
    path = raw(tiny.with_name("cut.gguf"), tiny.read_bytes()[:-32])
    problem = refused(path)
    assert problem.key == "output.weight"
    assert problem.hint == "truncated?"


@pytest.mark.parametrize(
    ("header", "key", "message"),
    [
        ([], "", "ends within the magic number"),
        ([b"PK\x03\x04", bytes(100)], "", "is not a GGUF file"),
        ([start(version=1)], "", "is GGUF version 1;"),
        ([start(tensors=2**60)], "", "states 1152921504606846976 tensors"),
        ([start(keys=2**60)], "", "states 1152921504606846976 keys"),
        ([start(), struct.pack("<Q", 2**62)], "", "ends within a key's name"),
        ([start(), text(b"a\x1b[2J")], "", "has a key's name with unprintable characters"),
        ([start(), text(b"a"), struct.pack("<I", 99)], "a", "has a value of unknown type 99"),
        ([start(), text(b"a"), struct.pack("<IQ", 8, 2**63)], "a", "ends within a text"),
        ([start(), text(b"a"), struct.pack("<IIQ", 9, 0, 2**60)], "a", "states 1152921504606846976 array elements"),
        ([start(), text(b"a"), struct.pack("<IIQ", 9, 0, 3_999_999)], "a", "ends within an array"),
        ([start(), text(b"a"), struct.pack("<IIQ", 9, 8, 3_999_999)], "a", "ends within"),
        ([start(), text(b"a"), struct.pack("<IIQ", 9, 9, 1)], "a", "has a value of unknown type 9"),
        ([start(keys=2), 2 * (text(b"a") + struct.pack("<II", 4, 1))], "a", "is there twice"),
        ([start(1, 0), text(b"t"), struct.pack("<I", 2**31)], "t", "has 2147483648 dimensions"),
        ([start(1, 0), text(b"t"), struct.pack("<IQIQ", 1, 33, 8, 0)], "t", "has shape [33]"),
        ([start(1, 0), text(b"t"), struct.pack("<IQIQ", 1, 0, 0, 0)], "t", "has shape [0]"),
        ([start(1, 0), text(b"t"), struct.pack("<IQIQ", 1, 32, 4, 0)], "t", "has tensor type 4"),
        ([start(1, 0), text(b"t"), struct.pack("<IQIQ", 1, 2**63, 0, 0)], "t", "needs 36893488147419103232 bytes"),
        ([start(1, 0), text(b"t"), struct.pack("<IQIQ", 1, 32, 0, 2**64 - 1)], "t", "needs 128 bytes at offset"),
        ([start(2, 0), 2 * (text(b"t") + struct.pack("<IQIQ", 1, 1, 0, 0)), bytes(64)], "t", "is there twice"),
    ],
)
def test_absurd_lengths_are_refused_at_once(tmp_path, header, key, message):
    path = raw(tmp_path / "x.gguf", *header)
    began = time.monotonic()
    tracemalloc.start()
    try:
        problem = refused(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert problem.key == key
    assert problem.message.startswith(message)
    assert peak < 1_000_000
    assert time.monotonic() - began < 1


@FUZZ
@given(length=st.integers(0, HEADER))
def test_any_truncation_is_refused(tiny, length):
    assert refused(raw(tiny.with_name("short.gguf"), tiny.read_bytes()[:length])).message


@FUZZ
@given(damage=st.lists(st.tuples(PLACES, st.binary(min_size=1, max_size=1)), min_size=1, max_size=6))
def test_any_damaged_bytes_are_survived(tiny, scratch, damage):
    survives(tiny, scratch, damage)


@FUZZ
@given(place=PLACES, value=st.sampled_from([0, 1, 2**16, 2**31, 2**32 - 1, 2**32, 2**48, 2**63, 2**64 - 1]))
def test_any_absurd_count_is_survived(tiny, scratch, place, value):
    survives(tiny, scratch, [(place, struct.pack("<Q", value))])


def test_each_inverted_byte_of_the_scalar_keys_is_survived(tiny, scratch):
    original = tiny.read_bytes()[:1100]
    for place, value in enumerate(original):
        survives(tiny, scratch, [(place, bytes([value ^ 0xFF]))])


def survives(tiny, scratch, damage):
    """A damaged copy gives a valid result or an InputError; any other exception fails the test."""
    with tiny.open("rb") as original:
        header = original.read(HEADER + 8)
    with scratch.open("r+b") as file:
        for place, data in damage:
            file.seek(place)
            file.write(data)
    try:
        with contextlib.suppress(InputError):
            facts = read_gguf(scratch)
            assert len(facts.kv_heads) == facts.layers
    finally:
        with scratch.open("r+b") as file:
            file.write(header)
