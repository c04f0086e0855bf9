"""A Shape from a GGUF header: enough for KV cache and working memory; the weights' bytes are the file's own."""

from __future__ import annotations

from rackserve.catalog.gguf_header import GgufFacts
from rackserve.domain.shape import AttentionCache, Layer, Matrix, Shape


def shape_from_gguf(facts: GgufFacts) -> Shape:
    """The shape as far as llama.cpp's memory depends on it.

    A header gives one window for all layers without saying which of them have it, so every layer counts as a full one:
    never too little.
    """
    layers = tuple(
        Layer((), (AttentionCache(heads, facts.key_length, facts.value_length),) if heads else ())
        for heads in facts.kv_heads
    )
    return Shape(
        architecture=facts.architecture,
        model_type=facts.architecture,
        context_length=facts.context_length,
        hidden=facts.embedding_length,
        vocab=facts.vocab_size,
        heads=facts.heads,
        intermediate=facts.embedding_length * 4,
        layers=layers,
        embedding=Matrix("embed_tokens", facts.vocab_size, facts.embedding_length, "column", linear=False),
        head=None,
        quantization=facts.file_type,
    )
