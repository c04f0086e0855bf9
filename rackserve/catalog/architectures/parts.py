"""Building blocks that models of all families share: matrices named as in the checkpoint, split as in the engines.

Splits follow vLLM 0.33's layers: QKV and the first feed-forward matrices column parallel, output matrices row parallel,
norms, routers and latent projections repeated on every GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from rackserve.catalog.architectures.config import Config
from rackserve.domain.shape import Matrix, Split


@dataclass(frozen=True, slots=True)
class AttentionParts:
    """What distinguishes one family's attention from another's.

    gate: the query matrix also makes an output gate, which doubles it. own_kv: False for layers that use another
    layer's keys and values. value_is_key: the layer has no value matrix. qk_norm: `head` for one norm of head_dim for
    queries and keys each, `full` for one over all heads, `whole` for that without tensor parallelism. sinks: one
    learnt logit per head.
    """

    qkv_bias: bool = False
    output_bias: bool = False
    gate: bool = False
    own_kv: bool = True
    value_is_key: bool = False
    qk_norm: str = ""
    sinks: bool = False


def vector(name: str, size: int, *, fp32: bool = False, split: bool = False) -> Matrix:
    """A norm, bias or other vector; it is never quantized."""
    return Matrix(name, size, split="column" if split else "replicated", linear=False, stored="fp32" if fp32 else "")


def attention(
    hidden: int,
    heads: int,
    kv_heads: int,
    key_length: int,
    value_length: int,
    *,
    parts: AttentionParts,
    prefix: str = "self_attn",
) -> tuple[Matrix, ...]:
    """Grouped-query attention (with kv_heads equal to heads: multi-head)."""
    query = heads * key_length * (2 if parts.gate else 1)
    matrices = [Matrix(f"{prefix}.q_proj", query, hidden, "column", bias=parts.qkv_bias)]
    if parts.own_kv:
        key = Matrix(f"{prefix}.k_proj", kv_heads * key_length, hidden, "column", heads=kv_heads, bias=parts.qkv_bias)
        matrices.append(key)
        if not parts.value_is_key:
            value = Matrix(
                f"{prefix}.v_proj", kv_heads * value_length, hidden, "column", heads=kv_heads, bias=parts.qkv_bias
            )
            matrices.append(value)
    matrices.append(Matrix(f"{prefix}.o_proj", hidden, heads * value_length, "row", bias=parts.output_bias))
    if parts.qk_norm == "head":
        matrices += [vector(f"{prefix}.q_norm", key_length), vector(f"{prefix}.k_norm", key_length)]
    elif parts.qk_norm in ("full", "whole"):
        split = parts.qk_norm == "full"
        key_norm = Matrix(
            f"{prefix}.k_norm",
            kv_heads * key_length,
            1,
            "column" if split else "replicated",
            heads=kv_heads,
            linear=False,
        )
        matrices += [vector(f"{prefix}.q_norm", heads * key_length, split=split), key_norm]
    if parts.sinks:
        matrices.append(vector(f"{prefix}.sinks", heads, split=True))
    return tuple(matrices)


def feed_forward(
    hidden: int, intermediate: int, *, prefix: str = "mlp", gated: bool = True, bias: bool = False, split: bool = True
) -> tuple[Matrix, ...]:
    """A dense feed-forward block; gated ones have two input matrices."""
    column: Split = "column" if split else "replicated"
    row: Split = "row" if split else "replicated"
    names = ("gate_proj", "up_proj") if gated else ("up_proj",)
    return (
        *(Matrix(f"{prefix}.{name}", intermediate, hidden, column, bias=bias) for name in names),
        Matrix(f"{prefix}.down_proj", hidden, intermediate, row, bias=bias),
    )


def experts(
    hidden: int, intermediate: int, count: int, *, gated: bool = True, bias: bool = False, prefix: str = "mlp.experts"
) -> tuple[Matrix, ...]:
    """The matrices of all routed experts; each expert is split like a dense block."""
    inputs = 2 if gated else 1
    return (
        Matrix(f"{prefix}.w13", inputs * intermediate, hidden, "column", count=count, bias=bias),
        Matrix(f"{prefix}.w2", hidden, intermediate, "row", count=count, bias=bias),
    )


def router(
    hidden: int,
    count: int,
    *,
    bias: bool = False,
    correction: bool = False,
    fp32: bool = False,
    linear: bool = False,
    prefix: str = "mlp",
) -> tuple[Matrix, ...]:
    """The gate that chooses experts, and the correction that balances their load where the family has one."""
    gate = Matrix(f"{prefix}.gate", count, hidden, linear=linear, bias=bias, stored="fp32" if fp32 else "")
    return (gate, vector(f"{prefix}.gate.e_score_correction_bias", count, fp32=True)) if correction else (gate,)


def shared_width(config: Config, width: int) -> int:
    """Width of the shared experts together, 0 where there are none; `width` is that of one expert."""
    return width * config.integer(
        "n_shared_experts", "num_shared_experts", "moe_num_shared_experts", default=0, least=0
    )


def norms(hidden: int, count: int, *, bias: bool = False) -> tuple[Matrix, ...]:
    """`count` norms over the hidden size."""
    return (Matrix("norm", hidden * count, 2 if bias else 1, linear=False),) if count else ()
