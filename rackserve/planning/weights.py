"""Bytes of a model's weights on each GPU, for tensor and pipeline parallelism. Pure arithmetic over a Shape.

Follows what the engines' layer code allocates (vLLM 0.33): see domain/shape.py for how a matrix splits. Embedding
and head are padded to a multiple of 64 rows, and stay in the model's data type whatever quantization says.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from rackserve.domain.shape import Layer, Matrix, Shape
from rackserve.domain.weight_format import FORMATS
from rackserve.planning.allocator import layer_rounding

GIB = 1024**3
# vLLM's DEFAULT_VOCAB_PADDING_SIZE.
VOCAB_PADDING = 64
_ABSORBED_BYTES = 2
_EXPERT_WIDTH, _EXPERT_HIDDEN = 128, 256


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes on a GPU of each stage: weights as the model is built, what preparing them adds, and tables."""

    stages: tuple[int, ...]
    prepared: tuple[int, ...]
    buffers: int

    def stage(self, index: int) -> int:
        """Bytes on a GPU of this stage once the model is loaded."""
        return self.stages[index] + self.prepared[index] + self.buffers

    @property
    def bytes_per_gpu(self) -> int:
        """Those of the stage that needs most."""
        return max(self.stage(index) for index in range(len(self.stages)))


def stage_layers(layers: int, pipeline_parallel: int) -> tuple[int, ...]:
    """Layers of each pipeline stage, as vLLM divides them: what is left over goes to the stages before the last."""
    base, rest = divmod(layers, pipeline_parallel)
    counts = [base] * pipeline_parallel
    for offset in range(rest):
        counts[-(offset + 2)] += 1
    return tuple(counts)


def weights(
    shape: Shape, quantization: str, tensor_parallel: int, pipeline_parallel: int = 1, towers: str = ""
) -> Weights:
    """What each GPU holds. `quantization`: a key of FORMATS to convert linears to, empty to serve them as stored."""
    stages, prepared = [], []
    first = 0
    for stage, count in enumerate(stage_layers(len(shape.layers), pipeline_parallel)):
        layers = shape.layers[first : first + count]
        first += count
        held = sum(layer_bytes(layer, quantization, tensor_parallel, shape.dtype_bytes) for layer in layers)
        stages.append(held + _outside(shape, towers, tensor_parallel, stage, pipeline_parallel))
        prepared.append(
            sum(prepared_bytes(layer, quantization, tensor_parallel, shape.dtype_bytes) for layer in layers)
        )
    return Weights(tuple(stages), tuple(prepared), shape.buffers_bytes)


def _outside(shape: Shape, towers: str, tensor_parallel: int, stage: int, stages: int) -> int:
    """Embedding of the first stage, norm and head of the last (a tied head is a copy there); towers are on all.

    Towers stay in 16 bits in quantized checkpoints; FP8 made while loading converts them too (`towers`).
    """
    is_first, is_last = stage == 0, stage == stages - 1
    vocab = padded_vocab_bytes(shape.embedding, tensor_parallel, shape.dtype_bytes)
    held = sum(matrix_bytes(matrix, towers, tensor_parallel, shape.dtype_bytes) for matrix in shape.extras)
    if is_last:
        held += sum(matrix_bytes(matrix, "", tensor_parallel, shape.dtype_bytes) for matrix in shape.final)
    tied = shape.head is None
    has_embedding = is_first or shape.embedded_everywhere or (tied and is_last)
    has_head = not tied and (is_last or shape.embedded_everywhere)
    head = head_bytes(shape, tensor_parallel) if has_head else 0
    return held + vocab * has_embedding + head


def head_bytes(shape: Shape, tensor_parallel: int) -> int:
    """Bytes of an untied head's part on one GPU, in the format that the checkpoint stores it in."""
    if shape.head is None:
        return 0
    if not shape.head.stored:
        return padded_vocab_bytes(shape.head, tensor_parallel, shape.dtype_bytes)
    rows = -(-(-(-shape.head.rows // VOCAB_PADDING) * VOCAB_PADDING) // tensor_parallel)
    return FORMATS[shape.head.stored].matrix_bytes(rows, shape.head.columns)


def padded_vocab_bytes(matrix: Matrix, tensor_parallel: int, item_bytes: int) -> int:
    """Bytes of an embedding's part on one GPU."""
    rows = -(-matrix.rows // VOCAB_PADDING) * VOCAB_PADDING
    return -(-rows // tensor_parallel) * matrix.columns * item_bytes


@functools.cache
def layer_bytes(layer: Layer, quantization: str, tensor_parallel: int, item_bytes: int) -> int:
    """Bytes of one layer's part on one GPU. Layers of a model are alike, so each kind is counted once.

    MXFP4 is a format of experts: what stands beside them stays as it is (gpt-oss).
    """
    experts_only = quantization == "mxfp4" and any(matrix.count > 1 for matrix in layer.matrices)
    return sum(
        matrix_bytes(matrix, "" if experts_only and matrix.count == 1 else quantization, tensor_parallel, item_bytes)
        for matrix in layer.matrices
    )


@functools.cache
def prepared_bytes(layer: Layer, quantization: str, tensor_parallel: int, item_bytes: int) -> int:
    """Bytes that allocating one layer's weights, and preparing them after loading, adds on one GPU.

    MLA keeps the two halves of kv_b_proj in 16 bits beside it (vLLM's mla_attention.py), and the kernels for MXFP4
    experts round both sizes of an expert up (oracle/mxfp4.py: 128 and 256 for Marlin and TensorRT-LLM's kernels).
    """
    added = layer_rounding(layer.matrices, quantization, tensor_parallel, item_bytes)
    for matrix in layer.matrices:
        rows, columns = matrix.shard(tensor_parallel)
        if matrix.name.endswith("kv_b_proj"):
            added += rows * columns * _ABSORBED_BYTES
        elif (matrix.stored or quantization) == "mxfp4" and matrix.count > 1:
            added += matrix.count * (
                _padded_expert(matrix, rows, columns) - FORMATS["mxfp4"].matrix_bytes(rows, columns)
            )
    return added


def _padded_expert(matrix: Matrix, rows: int, columns: int) -> int:
    if matrix.split == "column":
        rows, columns = 2 * _up(-(-rows // 2), _EXPERT_WIDTH), _up(columns, _EXPERT_HIDDEN)
    else:
        rows, columns = _up(rows, _EXPERT_HIDDEN), _up(columns, _EXPERT_WIDTH)
    return FORMATS["mxfp4"].matrix_bytes(rows, columns)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def matrix_bytes(matrix: Matrix, quantization: str, tensor_parallel: int, item_bytes: int) -> int:
    """Bytes of one matrix's part on one GPU, scales and bias included."""
    rows, columns = matrix.shard(tensor_parallel)
    name = matrix.stored or (quantization if matrix.linear else "")
    if name:
        size = FORMATS[name].matrix_bytes(rows, columns) if name != "fp32" else rows * columns * 4
    else:
        size = rows * columns * item_bytes
    bias = rows * item_bytes if matrix.bias else 0
    return matrix.count * (size + bias)
