"""Tables of rotary embeddings, which vLLM keeps on every GPU for the model's whole context (Llama 4 Scout: 2.5 GiB).

vLLM 0.33, model_executor/layers/rotary_embedding: one table of positions x rotary dimensions for each distinct set of
parameters, in the model's data type unless the family's code asks for another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from rackserve.catalog.architectures.config import Config

# Served through vLLM's transformers backend, which computes angles as it needs them, or without any positions.
_NONE = frozenset(
    {
        "arcee",
        "hunyuan_v1_dense",
        "olmo2",
        "olmo3",
        "seed_oss",
        "smollm3",
        "starcoder2",
        "glm",
        "nemotron_h",
        "kimi_linear",
    }
)
# gpt_oss.py and deepseek_v4 ask for float32.
_PRECISE = frozenset({"gpt_oss", "deepseek_v4"})
# MRoPE numbers video frames beyond the count of tokens; Qwen 3 VL and later keep positions within it.
_VIDEO_POSITIONS = 4
_VIDEO = frozenset({"qwen2_vl_text", "qwen2_5_vl_text"})
_ORIGINAL = "original_max_position_embeddings"
_WINDOWED_BASES = ("rope_local_base_freq", "swa_rope_theta", "local_rope_theta")
_SAME_LENGTH = frozenset({"", "default", "llama3", "mrope", "proportional"})
_TIMES_FACTOR = frozenset({"linear", "dynamic", "ntk"})
_YARN = frozenset({"yarn", "deepseek_yarn", "deepseek_llama_scaling"})
_LONG = frozenset({"longrope", "su"})


def rope_tables(config: Config, family: str, item_bytes: int) -> int:
    """Bytes of all tables of one model, one for each kind of rotary embedding it has."""
    if family in _NONE or config.text("position_embedding_type") == "nope":
        return 0
    size = 4 if family in _PRECISE else item_bytes
    return sum(positions * dimensions * size for positions, dimensions in _kinds(config, family))


def _kinds(config: Config, family: str) -> Iterator[tuple[int, int]]:
    """Positions and rotary dimensions of each table."""
    positions = config.integer("max_position_embeddings", default=2048)
    if family.startswith("cohere"):
        positions = config.integer("model_max_length", default=positions)
    head = _head(config)
    stated = config.table("rope_parameters")
    kinds = [name for name in stated.values if name.endswith("_attention")]
    if kinds:
        for name in kinds:
            wide = name == "full_attention" and config.has("global_head_dim")
            size = config.integer("global_head_dim") if wide else head
            yield _positions(stated.table(name), positions), _dimensions(config, stated.table(name), size)
        return
    parameters = stated if stated.values else config.table("rope_scaling")
    # Phi 3 states it beside the table.
    parameters = parameters.with_defaults({_ORIGINAL: config.values.get(_ORIGINAL)})
    length = _positions(parameters, positions)
    if family in _VIDEO and parameters.has("mrope_section"):
        length *= _VIDEO_POSITIONS
    dimensions = _dimensions(config, parameters, head)
    yield length, dimensions
    if _has_second(config, family):
        # The table of windowed layers is not scaled, and DeepSeek V4 has one of the scaled length for each base.
        yield (length if family == "deepseek_v4" else positions), dimensions


def _has_second(config: Config, family: str) -> bool:
    """Whether some layers rotate by another base, or in another order."""
    if family == "gemma3_text" or any(config.has(name) for name in _WINDOWED_BASES):
        return True
    if config.has("index_topk") and family != "deepseek_v4":
        return not config.flag("indexer_rope_interleave", default=False)
    if family == "deepseek_v4":
        ratios = config.integers("compress_ratios")[: config.integer("num_hidden_layers", most=4096)]
        return any(ratio > 1 for ratio in ratios) and any(ratio <= 1 for ratio in ratios)
    return False


def _head(config: Config) -> int:
    """Elements of a head that positions apply to."""
    heads = config.integer("num_attention_heads", most=4096)
    head = config.integer("head_dim", default=max(1, config.integer("hidden_size") // heads))
    return config.optional("qk_rope_head_dim") or head


def _dimensions(config: Config, parameters: Config, head: int) -> int:
    """How much of a head turns. Gemma 4's proportional kind keeps a table for all of it."""
    if parameters.text("rope_type") == "proportional" or config.has("qk_rope_head_dim"):
        return head
    if config.has("rotary_dim"):
        return config.integer("rotary_dim", most=2**20)
    outer = config.number("partial_rotary_factor", "rotary_pct", "rotary_emb_fraction", default=1, most=1)
    return int(head * parameters.number("partial_rotary_factor", default=outer, most=1))


def _positions(parameters: Config, positions: int) -> int:
    """Length of the table for one kind of scaling."""
    kind = parameters.text("rope_type") or parameters.text("type")
    original = parameters.integer(_ORIGINAL, default=positions)
    factor = parameters.number("factor", default=1, least=0.001, most=2**20)
    if kind in _SAME_LENGTH or (kind == "dynamic" and parameters.has("alpha")):
        return positions
    if kind in _TIMES_FACTOR:
        return math.ceil(positions * factor)
    if kind in _YARN:
        return math.ceil(original * factor)
    if kind in _LONG:
        return original + positions
    parameters.problem("rope_type", f"{kind} is not known")
    return positions
