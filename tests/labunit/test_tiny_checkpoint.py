"""The tiny checkpoint is one fixed folder for each seed, in the formats that loaders read."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rackserve.catalog.architectures.reader import read_config
from rackserve.lab import tiny_checkpoint
from rackserve.lab.tiny_checkpoint import BOS, EOS, LAYERS, byte_characters, vocabulary, write_tiny_checkpoint
from rackserve.lab.tiny_model import BIAS_CHANNEL, EMBEDDING, RMS_EPSILON, WORDS

# What is served under a name is found by these sums: change them only together with the checkpoint, on purpose.
SHA256 = {
    "config.json": "078406194c04d650bbbc529d634d12bb92d42ac7962c44093a5f368b2d30d8fe",
    "generation_config.json": "e4d1b1dba8dd9cca63ba6a8ee69617a24a6944028d82269294f6e2643efb68aa",
    "model.safetensors": "1cbc03f134403fbe01f2bbe9757aac40d0ff4848a3d0f1664d50329044482607",
    "tokenizer.json": "b7dec024499de85f08d137cef8adaea6e52811ffb107d8800780dfdba34b0d3e",
    "tokenizer_config.json": "ad96fb07cbe90cbc66b2f6504a24d68a9ce4100029bd168f9492d92163aa9830",
}


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_tiny_checkpoint(made)
    return made


def settings(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def header_and_data(folder: Path) -> tuple[dict[str, Any], bytes]:
    content = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    assert size % 8 == 0
    return json.loads(content[8 : 8 + size]), content[8 + size :]


@pytest.fixture(scope="module")
def tensors(folder: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Every tensor by name, as floats."""
    header, data = header_and_data(folder)
    del header["__metadata__"]
    loaded = {}
    for name, told in header.items():
        first, last = told["data_offsets"]
        bits = np.frombuffer(data[first:last], dtype="<u2").astype(np.uint32) << 16
        loaded[name] = bits.view(np.float32).reshape(told["shape"])
    return loaded


def test_the_folder_is_the_same_on_every_machine(folder):
    assert sums(folder) == SHA256


def test_another_seed_is_another_model_with_the_same_tokenizer(folder, tmp_path):
    write_tiny_checkpoint(tmp_path / "other", seed=1)
    here, there = sums(folder), sums(tmp_path / "other")
    assert {name for name in here if here[name] != there[name]} == {"model.safetensors"}


def test_a_leftover_and_an_older_folder_are_replaced(folder, tmp_path):
    for name in ("tiny", "tiny.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").write_text("x")
    write_tiny_checkpoint(tmp_path / "tiny")
    assert sums(tmp_path / "tiny") == sums(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_an_interrupted_write_leaves_no_folder(tmp_path, monkeypatch):
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tiny_checkpoint, "_write_safetensors", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_tiny_checkpoint(tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


def test_the_planner_reads_its_config(folder, tensors):
    shape = read_config(settings(folder, "config.json"), "tiny")
    assert len(shape.layers) == LAYERS
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert tensors[name].shape == (len(vocabulary()), EMBEDDING)


def test_tensors_fill_the_file_without_gaps_and_say_what_they_are(folder, tensors):
    header, data = header_and_data(folder)
    assert header.pop("__metadata__")["format"] == "pt"
    assert len(tensors) == 3 + 9 * LAYERS
    end = 0
    for told in header.values():
        first, last = told["data_offsets"]
        assert (told["dtype"], first, last - first) == ("BF16", end, 2 * int(np.prod(told["shape"])))
        end = last
    assert end == len(data)


def test_numbers_are_rounded_to_the_nearest_that_bfloat16_has():
    values = np.array([1.0, 1.00390625, 1.01171875, -0.3333333, 0.0], dtype=np.float32)
    bits = np.frombuffer(tiny_checkpoint._bfloat16(values), dtype="<u2").astype(np.uint32) << 16
    assert bits.view(np.float32).tolist() == [1.0, 1.0, 1.015625, -0.333984375, 0.0]


def test_every_token_is_there_once_and_every_byte_has_one(folder):
    tokens = vocabulary()
    assert len(tokens) == len(set(tokens))
    assert settings(folder, "tokenizer.json")["model"]["vocab"] == {token: at for at, token in enumerate(tokens)}
    assert (tokens.index(BOS), tokens.index(EOS)) == (0, 1)
    assert len(set(byte_characters())) == 256
    assert [byte_characters()[value] for value in (ord("A"), ord(" "), 0xAD)] == ["A", "\u0120", "\u0143"]


def merged(text: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-level BPE by the book: the pair of lowest rank is joined first."""
    pieces = [byte_characters()[value] for value in text.encode()]
    while pairs := [pair for pair in pairwise(pieces) if pair in ranks]:
        best = min(pairs, key=ranks.__getitem__)
        at = list(pairwise(pieces)).index(best)
        pieces[at : at + 2] = ["".join(best)]
    return pieces


def test_each_word_is_reached_by_its_merges(folder):
    merges = settings(folder, "tokenizer.json")["model"]["merges"]
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
    for word in WORDS.split():
        assert merged(f" {word}", ranks) == [f"\u0120{word}"]


def test_only_words_and_punctuation_can_be_sampled(tensors):
    """Softmax over the final hidden states of a model cut down to its embedding: the layers leave the channel alone."""
    hidden = tensors["model.embed_tokens.weight"]
    normed = hidden / np.sqrt(np.mean(hidden**2, axis=1, keepdims=True) + RMS_EPSILON)
    logits = normed @ tensors["lm_head.weight"].T
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    spoken = {f"\u0120{word}" for word in WORDS.split()} | {".", ","}
    silent = [token not in spoken for token in vocabulary()]
    assert (weights[:, silent].sum(axis=1) / weights.sum(axis=1)).max() < 1e-6
    for name, matrix in tensors.items():
        if "o_proj" in name or "down_proj" in name:
            assert matrix.shape[0] == EMBEDDING
            assert not matrix[BIAS_CHANNEL].any(), name
            assert matrix[1:].any(), name
