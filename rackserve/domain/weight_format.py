"""How many bytes a matrix takes in each number format that weights are stored or served in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """Bits of one number, and the scales that go with them.

    kind: what the GPU multiplies or unpacks. group: columns of one row that share a scale, 0 for one scale per row.
    block: rows and columns that share a scale. scale_bits: bits of one scale, zero points included. matrix_bits: what
    comes once for each matrix. halving: the block becomes smaller where it does not divide a GPU's part of an expert.
    """

    name: str
    kind: str
    bits: float
    group: int = 0
    block: tuple[int, int] | None = None
    scale_bits: float = 0.0
    matrix_bits: float = 0.0
    halving: bool = False

    def matrix_bytes(self, rows: int, columns: int) -> int:
        """Bytes of one matrix with its scales."""
        bits = rows * columns * self.bits + self._scales(rows, columns) * self.scale_bits + self.matrix_bits
        return math.ceil(bits / 8)

    def _scales(self, rows: int, columns: int) -> int:
        if not self.scale_bits:
            return 0
        if self.block is None:
            # A GPU's part that groups do not divide has a scale for whole groups only.
            return rows * (max(1, columns // self.group) if self.group else 1)
        high, wide = self.block
        if self.halving:
            # An expert's first matrix is two, one above the other: a block must not reach from one into the other.
            high = wide = math.gcd(high, columns, max(1, rows // 2))
        return math.ceil(rows / high) * math.ceil(columns / wide)


# Bits and scales as the formats define them. Sources: OCP Microscaling 1.0 (mxfp4, mxfp8: 32 numbers share 8 bits),
# NVIDIA's NVFP4 (16 share 8 bits), compressed-tensors, and what vLLM 0.32 and 0.33 allocate for the others: one fp32
# scale per matrix (fp8: made while loading; fp8-tensor: stored, with one for the inputs), per row (fp8-channel) or per
# 128 x 128 block, one byte instead of four where DeepSeek V4 stores exponents only. GPTQ and AWQ have 16-bit scales,
# and where they are asymmetric a 4-bit zero point with each.
FORMATS: Mapping[str, WeightFormat] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            WeightFormat("fp32", "fp32", 32),
            WeightFormat("bf16", "bf16", 16),
            WeightFormat("fp8", "fp8", 8, matrix_bits=32),
            WeightFormat("fp8-tensor", "fp8", 8, matrix_bits=64),
            WeightFormat("fp8-channel", "fp8", 8, scale_bits=32),
            WeightFormat("fp8-block", "fp8", 8, block=(128, 128), scale_bits=32),
            WeightFormat("fp8-block-experts", "fp8", 8, block=(128, 128), scale_bits=32, halving=True),
            WeightFormat("fp8-block-ue8m0", "fp8", 8, block=(128, 128), scale_bits=8),
            WeightFormat("mxfp8", "mxfp8", 8, group=32, scale_bits=8),
            WeightFormat("int8", "int8", 8, scale_bits=32),
            WeightFormat("int4-g128", "int4", 4, group=128, scale_bits=16),
            WeightFormat("int4-g64", "int4", 4, group=64, scale_bits=16),
            WeightFormat("int4-g32", "int4", 4, group=32, scale_bits=16),
            WeightFormat("int4-channel", "int4", 4, scale_bits=16),
            WeightFormat("awq", "int4", 4, group=128, scale_bits=20),
            WeightFormat("awq-g64", "int4", 4, group=64, scale_bits=20),
            WeightFormat("awq-g32", "int4", 4, group=32, scale_bits=20),
            WeightFormat("nvfp4", "nvfp4", 4, group=16, scale_bits=8, matrix_bits=64),
            WeightFormat("mxfp4", "mxfp4", 4, group=32, scale_bits=8),
        )
    }
)
