"""Read from a GGUF file what planning needs: layer shapes, context length and weight sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf

from rackserve.catalog.gguf_walk import MAX_LAYERS, Header, List, read_header

_FILE_TYPES = {int(kind): kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in gguf.LlamaFileType}


@dataclass(frozen=True, slots=True)
class GgufFacts:
    """The shape of one model.

    Lengths are counts: tokens for `context_length` and `sliding_window`, vector elements for
    `embedding_length`, `key_length` and `value_length` (the latter two for one head).
    """

    architecture: str
    layers: int
    context_length: int
    embedding_length: int
    heads: int
    """Query heads; the most that any layer has, where layers differ."""
    kv_heads: tuple[int, ...]
    """Key/value heads of each layer, in order; 0 for a layer without attention."""
    key_length: int
    value_length: int
    vocab_size: int
    tensor_bytes: int
    """Size of all weights, in bytes, without padding or header."""
    file_type: str
    """The quantization, as in "Q8_0" or "Q4_K_M"; "GUESSED" if the file does not say."""
    sliding_window: int | None
    """Tokens a windowed layer looks back, or None where every layer sees the whole context."""
    embedding_bytes: int
    """Size of the embedding matrix, in bytes."""
    output_bytes: int
    """Size of the output matrix, in bytes; 0 where it is the embedding."""
    numbers: Mapping[str, int | tuple[int, ...]]
    """Every whole number that the architecture's keys hold, and lists of them, by key without the architecture."""


def read_gguf(path: Path) -> GgufFacts:
    """The facts of the single-file model at `path`; InputError names what is malformed or missing."""
    return _facts(read_header(path))


def _facts(header: Header) -> GgufFacts:
    """The defaults are the ones llama.cpp has for the same keys."""
    architecture = header.values.get("general.architecture")
    if not isinstance(architecture, str) or not architecture.isprintable():
        header.refuse("general.architecture", "is missing, or no text")
    if header.integer("split.count", least=0, default=1) > 1:
        # One part says nothing about the size of the whole.
        header.refuse("split.count", "is one part of a split model", "merge it with llama-gguf-split --merge")
    if not any(header.tensors.values()):
        header.refuse("", "holds no weights")
    layers = header.integer(f"{architecture}.block_count", most=MAX_LAYERS)
    embedding_length = header.integer(f"{architecture}.embedding_length")
    attention = f"{architecture}.attention"
    heads = header.for_layers(f"{attention}.head_count", layers, embedding_length)
    most_heads = max(heads)
    if most_heads == 0:
        header.refuse(f"{attention}.head_count", "is 0: a model without attention cannot be planned for")
    head_length = embedding_length // most_heads
    # New file types appear often: neither an unknown one nor the absence of this optional key is an error.
    file_type = header.integer("general.file_type", least=0, default=int(gguf.LlamaFileType.GUESSED))
    return GgufFacts(
        architecture=architecture,
        layers=layers,
        context_length=header.integer(f"{architecture}.context_length"),
        embedding_length=embedding_length,
        heads=most_heads,
        kv_heads=header.for_layers(f"{attention}.head_count_kv", layers, most_heads, default=heads),
        key_length=header.integer(f"{attention}.key_length", default=head_length),
        value_length=header.integer(f"{attention}.value_length", default=head_length),
        vocab_size=header.list_length("tokenizer.ggml.tokens"),
        tensor_bytes=sum(header.tensors.values()),
        file_type=_FILE_TYPES.get(file_type, f"UNKNOWN_{file_type}"),
        # 0 is how some converters write "no window".
        sliding_window=header.integer(f"{attention}.sliding_window", least=0, default=0) or None,
        embedding_bytes=header.tensors.get("token_embd.weight", 0),
        output_bytes=header.tensors.get("output.weight", 0),
        numbers=_numbers(header, f"{architecture}."),
    )


def _numbers(header: Header, prefix: str) -> dict[str, int | tuple[int, ...]]:
    found: dict[str, int | tuple[int, ...]] = {}
    for key, value in header.values.items():
        if key.startswith(prefix) and isinstance(value, int | List):
            found[key.removeprefix(prefix)] = value.numbers if isinstance(value, List) else int(value)
    return found
