"""A Shape from a GGUF header: KV cache and working memory as llama.cpp allocates them; weights are the file's bytes.

Keys and defaults follow llama.cpp 0.5 (commit 0c1e570, llama-model.cpp); an architecture that is not listed is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from rackserve.catalog.gguf_header import GgufFacts
from rackserve.domain.errors import InputError, Problem
from rackserve.domain.shape import AttentionCache, Cache, LatentCache, Layer, Matrix, Shape, StateCache

# Architectures whose every layer keeps what these keys say.
KNOWN = frozenset(
    {
        *("llama", "mistral3", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "qwen35", "qwen35moe", "phi3", "granite"),
        *("granitemoe", "gemma", "gemma2", "gemma3", "gemma4", "gpt-oss", "deepseek2", "command-r", "cohere2"),
        *("starcoder2", "olmo2", "glm4", "smollm3", "exaone4", "seed_oss"),
    }
)
# Of so many layers with a window the last one sees everything, where a file states no pattern.
_PERIODS: Mapping[str, int] = MappingProxyType({"gpt-oss": 2, "gemma2": 2, "cohere2": 4, "gemma3": 6})


def shape_from_gguf(facts: GgufFacts, where: str) -> Shape:
    """The shape as far as llama.cpp's memory depends on it. Raises InputError that names an unknown architecture."""
    if facts.architecture not in KNOWN:
        hint = f"known: {', '.join(sorted(KNOWN))}; or --config with the model's own config.json"
        raise InputError(
            [Problem(f"{facts.architecture} is not known", where=where, key="general.architecture", hint=hint)]
        )
    layers = tuple(Layer((), _caches(facts, index)) for index in range(facts.layers))
    embedding = Matrix("embed_tokens", facts.vocab_size, facts.embedding_length, "column", linear=False)
    experts = _number(facts, "expert_count")
    widest = _number(facts, "feed_forward_length")
    return Shape(
        architecture=facts.architecture,
        model_type=facts.architecture,
        context_length=facts.context_length,
        hidden=facts.embedding_length,
        vocab=facts.vocab_size,
        heads=facts.heads,
        intermediate=widest or 4 * facts.embedding_length,
        layers=layers,
        embedding=embedding,
        head=embedding if facts.output_bytes else None,
        experts=experts,
        experts_per_token=_number(facts, "expert_used_count"),
        expert_intermediate=(_number(facts, "expert_feed_forward_length") or widest) if experts else 0,
        query=facts.heads * (_number(facts, "attention.value_length_mla") or facts.key_length),
        quantization=facts.file_type,
    )


def _number(facts: GgufFacts, key: str) -> int:
    """A whole number of the header, never below 0; the largest where each layer has its own."""
    value = facts.numbers.get(key, 0)
    return max(0, value if isinstance(value, int) else max(value, default=0))


def _caches(facts: GgufFacts, index: int) -> tuple[Cache, ...]:
    """What one layer keeps."""
    if _is_recurrent(facts, index):
        return (_state(facts),)
    if "attention.key_length_mla" in facts.numbers:
        # With latent attention the value is part of the key.
        return (LatentCache(facts.key_length, _number(facts, "rope.dimension_count")),)
    heads = facts.kv_heads[index]
    if not heads or index >= facts.layers - _number(facts, "attention.shared_kv_layers"):
        return ()
    windowed = _is_windowed(facts, index)
    key, value = facts.key_length, facts.value_length
    if windowed:
        key = _number(facts, "attention.key_length_swa") or key
        value = _number(facts, "attention.value_length_swa") or value
    return (AttentionCache(heads, key, value, window=facts.sliding_window if windowed else None),)


def _is_windowed(facts: GgufFacts, index: int) -> bool:
    if not facts.sliding_window:
        return False
    pattern = facts.numbers.get("attention.sliding_window_pattern", _PERIODS.get(facts.architecture, 0))
    if isinstance(pattern, tuple):
        return index < len(pattern) and bool(pattern[index])
    # Without a pattern of its own or a built-in one, llama.cpp keeps every layer whole.
    return pattern > 0 and index % pattern < pattern - 1


def _is_recurrent(facts: GgufFacts, index: int) -> bool:
    interval = _number(facts, "full_attention_interval") or 4
    return _number(facts, "ssm.inner_size") > 0 and (index + 1) % interval != 0


def _state(facts: GgufFacts) -> StateCache:
    inner, state = _number(facts, "ssm.inner_size"), _number(facts, "ssm.state_size")
    channels = inner + 2 * _number(facts, "ssm.group_count") * state
    kernel = max(1, _number(facts, "ssm.conv_kernel"))
    return StateCache(conv=(kernel - 1) * channels, ssm=state * inner, kind="gdn")
