"""Write a small Llama checkpoint with random weights, for what serves safetensors: vLLM, SGLang, TensorRT-LLM.

It is to them what tiny_model's file is to llama.cpp, of the same measures and the same honesty: a folder as a hub has
it, loaded by the runtimes' real loaders, whose answers are real random English words.

The folder is the same, byte for byte, on every machine, for each seed: weights come from SHAKE-128 streams named after
their tensor, and every number goes through arithmetic that IEEE 754 rounds in one way only.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rackserve.lab.tiny_model import (
    BIAS_CHANNEL,
    BIAS_VALUE,
    BIAS_WEIGHT,
    CHAT_TEMPLATE,
    DESCRIPTION,
    EMBEDDING,
    FEED_FORWARD,
    HEAD_LENGTH,
    HEADS,
    KV_EMBEDDING,
    KV_HEADS,
    OUTPUT_SPREAD,
    PUNCTUATION,
    RMS_EPSILON,
    ROPE_BASE,
    WORDS,
)

Floats: TypeAlias = npt.NDArray[np.float32]

LAYERS = 2
CONTEXT = 2048
BOS, EOS = "<s>", "</s>"
_SPECIAL = (BOS, EOS)
_ALIGNMENT = 8


def write_tiny_checkpoint(folder: Path, seed: int = 0) -> None:
    """Write the checkpoint's files into `folder` (about 5 MB), which is replaced whole or not at all."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tokens = vocabulary()
    for name, content in _settings(tokens).items():
        (partial / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _write_safetensors(partial / "model.safetensors", _tensors(tokens, seed))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def vocabulary() -> list[str]:
    """Special tokens, one token for each byte, then words and their prefixes, all as byte-level BPE writes them.

    BPE joins two neighbouring pieces at a time, so the way to a word leads over all of its prefixes.
    """
    space = byte_characters()[ord(" ")]
    words = [space + word for word in WORDS.split()]
    prefixes = {word[:end] for word in words for end in range(2, len(word) + 1)}
    # Sorted, since a set has no order of its own; short pieces first, since a merge's place is its rank.
    return [*_SPECIAL, *byte_characters(), *sorted(prefixes, key=lambda piece: (len(piece), piece))]


def byte_characters() -> list[str]:
    """The character that stands for each byte value: itself where it can be seen, else the next one from U+0100."""
    seen = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    hidden = [value for value in range(256) if value not in seen]
    return [chr(value if value in seen else 256 + hidden.index(value)) for value in range(256)]


def _settings(tokens: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """The JSON files beside the weights, by name."""
    ids = {"bos_token_id": tokens.index(BOS), "eos_token_id": tokens.index(EOS)}
    return {
        "config.json": _config(len(tokens)) | ids,
        "generation_config.json": ids | {"do_sample": True},
        "tokenizer.json": _tokenizer(tokens),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "pad_token": EOS,
            "model_max_length": CONTEXT,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    }


def _config(vocab_size: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": LAYERS,
        "hidden_size": EMBEDDING,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_LENGTH,
        "intermediate_size": FEED_FORWARD,
        "vocab_size": vocab_size,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": RMS_EPSILON,
        "rope_theta": ROPE_BASE,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }


def _tokenizer(tokens: Sequence[str]) -> dict[str, Any]:
    """A tokenizer.json: byte-level BPE whose merges each add one character to a piece that is there."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    merged = tokens[len(_SPECIAL) + 256 :]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": tokens.index(content),
                "content": content,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for content in _SPECIAL
        ],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": level,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [f"{piece[:-1]} {piece[-1]}" for piece in merged],
        },
    }


def _tensors(tokens: Sequence[str], seed: int) -> Iterator[tuple[str, Floats]]:
    """Every tensor by name, shaped (outputs, inputs) or, for a norm, (EMBEDDING,)."""
    embedding = _noise("model.embed_tokens.weight", (len(tokens), EMBEDDING), spread=1.0, seed=seed)
    # One constant channel through the whole network stands in for the bias that the output layer has not.
    embedding[:, BIAS_CHANNEL] = BIAS_VALUE
    yield "model.embed_tokens.weight", embedding
    for layer in range(LAYERS):
        yield from _layer_tensors(f"model.layers.{layer}", seed)
    yield "model.norm.weight", np.ones(EMBEDDING, dtype=np.float32)
    output = _noise("lm_head.weight", (len(tokens), EMBEDDING), spread=OUTPUT_SPREAD, seed=seed)
    # Bytes at random would seldom be valid UTF-8, and an end at random would make an answer's length a matter of luck.
    output[:, BIAS_CHANNEL] = [BIAS_WEIGHT if spoken else -BIAS_WEIGHT for spoken in _spoken(tokens)]
    yield "lm_head.weight", output


def _spoken(tokens: Sequence[str]) -> list[bool]:
    """Which tokens the model is likely to say: whole words and punctuation."""
    space = byte_characters()[ord(" ")]
    said = {space + word for word in WORDS.split()} | set(PUNCTUATION)
    return [token in said for token in tokens]


def _layer_tensors(prefix: str, seed: int) -> Iterator[tuple[str, Floats]]:
    shapes = {
        "self_attn.q_proj": (EMBEDDING, EMBEDDING),
        "self_attn.k_proj": (KV_EMBEDDING, EMBEDDING),
        "self_attn.v_proj": (KV_EMBEDDING, EMBEDDING),
        "self_attn.o_proj": (EMBEDDING, EMBEDDING),
        "mlp.gate_proj": (FEED_FORWARD, EMBEDDING),
        "mlp.up_proj": (FEED_FORWARD, EMBEDDING),
        "mlp.down_proj": (EMBEDDING, FEED_FORWARD),
    }
    for part in ("input_layernorm", "post_attention_layernorm"):
        yield f"{prefix}.{part}.weight", np.ones(EMBEDDING, dtype=np.float32)
    for part, (outputs, inputs) in shapes.items():
        name = f"{prefix}.{part}.weight"
        weights = _noise(name, (outputs, inputs), spread=math.sqrt(3 / inputs), seed=seed)
        if part in ("self_attn.o_proj", "mlp.down_proj"):
            # What a layer adds to the hidden state must leave the constant channel alone.
            weights[BIAS_CHANNEL] = 0
        yield name, weights


def _noise(name: str, shape: tuple[int, int], *, spread: float, seed: int) -> Floats:
    """Uniform in [-spread, spread): 16-bit integers over a power of two, which is exact, times the spread."""
    stream = hashlib.shake_128(f"rackserve tiny checkpoint {seed}: {name}".encode()).digest(2 * shape[0] * shape[1])
    units = np.frombuffer(stream, dtype="<i2").astype(np.float32) / np.float32(2**15)
    return (units * np.float32(spread)).reshape(shape)


def _bfloat16(values: Floats) -> bytes:
    """The upper halves of the numbers, rounded to the nearest, ties to even."""
    bits: npt.NDArray[np.uint32] = values.astype("<f4").view("<u4")
    rounded: npt.NDArray[np.uint16] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return rounded.tobytes()


def _write_safetensors(path: Path, tensors: Iterator[tuple[str, Floats]]) -> None:
    """The length of a JSON header in 8 bytes, the header, padded so that what follows is aligned, and the numbers."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "description": DESCRIPTION}}
    data = bytearray()
    for name, values in tensors:
        begin = len(data)
        data += _bfloat16(values)
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [begin, len(data)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
