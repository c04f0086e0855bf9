"""Bytes that an engine needs beside weights and KV cache: activations at their peak, and CUDA graphs.

The constants are the catalogue's (`engines.toml`), the formulas follow what the engines' own dry run holds at once.
"""

from __future__ import annotations

import functools
import math

from rackserve.domain.engine import Engine
from rackserve.domain.shape import Matrix, Shape

MIB = 1024**2
# vLLM captures 51 batch sizes up to 512: 1, 2, 4, every 8 up to 256, every 16 from there.
_CAPTURED_UP_TO = 512
_CAPTURED_SIZES = 51
# Graphs of layers with experts took 1.3 to 1.9 times those of dense ones (DeepSeek V2 Lite, gpt-oss 20B, Qwen 1.5 MoE).
_EXPERT_GRAPHS = 1.9


def activation_bytes(
    shape: Shape, engine: Engine, tensor_parallel: int, seqs: int, batched_tokens: int, *, last_stage: bool = True
) -> int:
    """The peak of one step of `batched_tokens`, or of sampling for `seqs` sequences, whichever is more.

    Sampling holds logits of the whole vocabulary on every GPU, whatever the tensor parallelism, and the step's
    hidden states; only the last pipeline stage samples. A step through experts also holds their workspace (vLLM's
    fused_moe: the wider of both matrices' outputs and the activation between them, for each expert of a token).
    """
    item = shape.dtype_bytes
    widest = 3 * math.ceil(shape.intermediate / tensor_parallel) + engine.hidden_copies * shape.hidden
    step = batched_tokens * widest * item
    sampling = seqs * shape.vocab * 4 * engine.sampler_copies + batched_tokens * shape.hidden * item
    peak = max(step, sampling) if last_stage else step
    return math.ceil(peak) + _expert_workspace(shape, tensor_parallel, batched_tokens)


def _expert_workspace(shape: Shape, tensor_parallel: int, batched_tokens: int) -> int:
    width = math.ceil(expert_width(shape) / tensor_parallel)
    if not width:
        return 0
    return batched_tokens * shape.experts_per_token * (max(2 * width, shape.hidden) + width) * shape.dtype_bytes


@functools.lru_cache(maxsize=1024)
def expert_width(shape: Shape) -> int:
    """Columns of one expert's second matrix, 0 for a dense model."""
    found = (matrix.columns for layer in shape.layers for matrix in layer.matrices if _is_second(matrix))
    return shape.expert_intermediate or max(found, default=0)


def _is_second(matrix: Matrix) -> bool:
    return matrix.count > 1 and matrix.split == "row"


def graph_bytes(shape: Shape, engine: Engine, layers: int, seqs: int) -> int:
    """CUDA graphs of `layers` layers for all batch sizes up to `seqs`.

    An upper bound: measured 0.51 to 1.09 GiB for 8 to 42 dense layers, 1.10 to 1.57 GiB for 24 to 27 layers of experts.
    """
    sizes = min(1.0, captured_sizes(seqs) / _CAPTURED_SIZES)
    factor = _EXPERT_GRAPHS if shape.experts else 1.0
    return math.ceil((engine.graph_mib + engine.graph_layer_mib * layers * factor * sizes) * MIB)


def captured_sizes(seqs: int) -> int:
    """How many batch sizes are captured: up to twice `seqs`, at most 512."""
    largest = min(2 * seqs, _CAPTURED_UP_TO)
    small, middle = min(largest, 256), max(0, largest - 256)
    return 3 + small // 8 + middle // 16
