"""Bytes of a GGUF file by parts: from its size where there is a file, else from the model's shape and the mix."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rackserve.domain.shape import Matrix, Shape


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
