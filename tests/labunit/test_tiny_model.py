"""The tiny model is one fixed file, and it says what it is."""

import hashlib

import gguf
import numpy as np
import pytest

from rackserve.lab import tiny_model
from rackserve.lab.tiny_model import vocabulary, write_tiny_gguf

# Lab services name the file by this sum: change it only together with the model, on purpose.
SHA256 = "034d4c67d18c5492215964c81c9682506bf81ec998ee6fc07f45da5bfd19e1bf"
SIZE = 4_133_280


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_gguf(path)
    return path


@pytest.fixture(scope="module")
def tensors(model):
    """Every tensor by name, as floats."""
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for tensor in gguf.GGUFReader(model).tensors
    }


def test_the_file_is_the_same_on_every_machine(model):
    data = model.read_bytes()
    assert len(data) == SIZE
    assert hashlib.sha256(data).hexdigest() == SHA256


def test_nothing_but_the_finished_file_is_left(model):
    assert [entry.name for entry in model.parent.iterdir()] == ["tiny.gguf"]


def test_a_leftover_and_an_older_file_are_replaced(tmp_path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"old")
    path.with_name("tiny.gguf.partial").write_bytes(b"x" * (SIZE + 1))
    write_tiny_gguf(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_the_path_alone(tmp_path, monkeypatch):
    path = tmp_path / "tiny.gguf"

    def full_disk(_writer):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_tiny_gguf(path)
    assert not path.exists()


def test_the_name_admits_that_the_weights_are_random(model):
    fields = gguf.GGUFReader(model).fields
    assert "random" in fields["general.name"].contents()


def test_matrices_are_quantized_and_norms_are_not(model):
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(model).tensors}
    assert len(kinds) == 3 + 9 * tiny_model.LAYERS
    for name, kind in kinds.items():
        assert kind == ("F32" if "norm" in name else "Q8_0"), name


def test_every_token_is_there_once():
    texts = [token.text for token in vocabulary()]
    assert len(texts) == len(set(texts))


def test_the_vocabulary_starts_as_llama_cpp_expects():
    tokens = vocabulary()
    assert [token.text for token in tokens[:3]] == ["<unk>", "<s>", "</s>"]
    assert [token.text for token in tokens[3:259]] == [f"<0x{value:02X}>" for value in range(256)]
    assert {token.kind for token in tokens[3:259]} == {gguf.TokenType.BYTE}


def test_each_word_can_be_reached_by_joining_neighbours():
    texts = {token.text for token in vocabulary()}
    words = [token.text for token in vocabulary() if token.kind == gguf.TokenType.NORMAL]
    assert len(words) > 10
    for word in words:
        assert all(word[:end] in texts for end in range(1, len(word))), word


def test_only_words_and_punctuation_can_be_sampled(tensors):
    """Softmax over the final hidden states of a model cut down to its embedding: the layers leave the channel alone."""
    hidden = tensors["token_embd.weight"]
    normed = hidden / np.sqrt(np.mean(hidden**2, axis=1, keepdims=True) + tiny_model.RMS_EPSILON)
    logits = normed @ tensors["output.weight"].T
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    silent = [not token.spoken for token in vocabulary()]
    assert (weights[:, silent].sum(axis=1) / weights.sum(axis=1)).max() < 1e-6


def test_layers_leave_the_bias_channel_alone(tensors):
    written = {name: part for name, part in tensors.items() if "attn_output" in name or "ffn_down" in name}
    assert written
    for name, weights in written.items():
        assert not weights[tiny_model.BIAS_CHANNEL].any(), name
        assert weights[1:].any(), name
