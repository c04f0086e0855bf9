"""Bytes of a GGUF file by parts: from its size where there is a file, else from the model's shape and the mix."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rackserve.domain.shape import Layer, Matrix, Shape
from rackserve.planning.request import Request


@dataclass(frozen=True, slots=True)
class Mix:
    """Bits per weight of one file type: linears on average, those that blocks of 256 do not divide, the output matrix.

    Embeddings have `embedding` bits where the output is another matrix, else they are the output.
    """

    linear: float
    odd: float
    embedding: float
    output: float


# llama-quantize's mixes, read off files of 26 shapes that were laid out with its rules (llama-quant.cpp, commit
# 0c1e570): Q4_K_M keeps half of the value and down matrices in Q6_K. Block sizes: gguf 0.19.
MIXES: Mapping[str, Mix] = MappingProxyType(
    {
        "Q2_K": Mix(3.0, 4.5, 2.625, 6.5625),
        "Q3_K_M": Mix(3.9, 5.0, 3.4375, 6.5625),
        "IQ4_XS": Mix(4.33, 4.5, 4.25, 6.5625),
        "Q4_0": Mix(4.5, 4.5, 4.5, 6.5625),
        "Q4_K_S": Mix(4.58, 5.5, 4.5, 6.5625),
        "Q4_K_M": Mix(4.87, 5.8, 4.5, 6.5625),
        "Q5_K_M": Mix(5.70, 6.5, 5.5, 6.5625),
        "Q6_K": Mix(6.575, 8.5, 6.5625, 6.5625),
        "Q8_0": Mix(8.51, 8.51, 8.5, 8.5),
        "MXFP4": Mix(8.51, 8.51, 8.5, 8.5),
        "F16": Mix(16.0, 16.0, 16.0, 16.0),
        "BF16": Mix(16.0, 16.0, 16.0, 16.0),
    }
)
_BLOCK = 256
# Of experts that the checkpoint has in MXFP4; what is beside them becomes Q8_0.
_MXFP4_BITS = 4.25


# Of the mixes whose layers differ, the bits of most matrices; value and down matrices of some layers are in Q6_K.
_UNEVEN = {"Q4_K_M": 4.5, "Q5_K_M": 5.5}
_RAISED = 6.5625
# What stands for these types where blocks of 256 do not divide the columns.
_FALLBACK = {4.5: 5.5, 5.5: 6.0, 6.5625: 8.5}
_EVERY = 3
_RAISED_NAMES = ("v_proj", "down_proj", ".w2")
# Part of a layer that these matrices are, where a GGUF header lists none: 28 to 34 % in the models of the catalogue.
_RAISED_PART = 0.3


@dataclass(frozen=True, slots=True)
class GgufWeights:
    """Bytes: of all repeating layers, of the embedding (which stays in the host's memory) and of the output matrix.

    tied: the output is the embedding, which the GPU then holds a copy of.
    """

    layers: int
    embedding: int
    output: int
    tied: bool

    @property
    def file(self) -> int:
        """Bytes of the file; a tied output is not in it twice."""
        return self.layers + self.embedding + (0 if self.tied else self.output)


def weights_of(request: Request, quantization: str) -> GgufWeights | None:
    """The parts of the file that a request is about: read where its header was, else from its size or the mix."""
    size = dict(request.files).get(quantization)
    if request.file_parts is not None and size is not None:
        return read_weights(size, *request.file_parts)
    return gguf_weights(request.shape, quantization, size)


def read_weights(size_bytes: int, embedding: int, output: int) -> GgufWeights:
    """The parts of a file whose header was read."""
    return GgufWeights(size_bytes - embedding - output, embedding, output or embedding, tied=not output)


def gguf_weights(shape: Shape, quantization: str, size_bytes: int | None) -> GgufWeights | None:
    """The parts of a file; None for a quantization whose mix is not known and whose size neither."""
    mix = MIXES.get(quantization.upper())
    if mix is None and size_bytes is None:
        return None
    known = mix or Mix(0, 0, 8.5, 8.5)
    tied = shape.head is None
    bits = known.output if tied else known.embedding
    embedding = math.ceil(shape.embedding.elements * bits / 8)
    output = embedding if tied else math.ceil(shape.embedding.elements * known.output / 8)
    if size_bytes is not None:
        return GgufWeights(max(0, size_bytes - embedding - (0 if tied else output)), embedding, output, tied)
    return GgufWeights(_layer_bytes(shape, known), embedding, output, tied)


@functools.lru_cache(maxsize=1024)
def _layer_bytes(shape: Shape, mix: Mix) -> int:
    bits = sum(_matrix_bits(matrix, mix) for layer in shape.layers for matrix in layer.matrices)
    return math.ceil(bits / 8)


def _matrix_bits(matrix: Matrix, mix: Mix) -> float:
    if not matrix.linear:
        return matrix.elements * 32.0
    if matrix.stored == "mxfp4":
        return matrix.elements * _MXFP4_BITS
    return matrix.elements * (mix.odd if matrix.columns % _BLOCK else mix.linear)


@functools.lru_cache(maxsize=1024)
def layer_shares(shape: Shape, quantization: str) -> tuple[float, ...]:
    """Each layer's part of the bytes of all layers. A GGUF header lists no matrices: then all have as many weights."""
    count, usual = len(shape.layers), _UNEVEN.get(quantization, _RAISED)
    bits = [(usual, _RAISED if _is_raised(index, count) else usual) for index in range(count)]
    sizes = [_layer_bits(layer, *pair) for layer, pair in zip(shape.layers, bits, strict=True)]
    if not all(sizes):
        sizes = [low * (1 - _RAISED_PART) + high * _RAISED_PART for low, high in bits]
    return tuple(size / sum(sizes) for size in sizes)


def _is_raised(index: int, count: int) -> bool:
    """llama-quantize's use_more_bits: the first and the last eighth, and every third between them."""
    eighth = count // 8
    return index < eighth or index >= 7 * count // 8 or (index - eighth) % _EVERY == _EVERY - 1


def _layer_bits(layer: Layer, usual: float, raised: float) -> float:
    total = 0.0
    for matrix in layer.matrices:
        bits = raised if matrix.linear and matrix.name.endswith(_RAISED_NAMES) else usual
        total += matrix.elements * (_FALLBACK[bits] if matrix.columns % _BLOCK and matrix.linear else bits)
    return total
