"""What PyTorch's caching allocator adds to weights: large tensors get whole segments, a small rest included.

Source: c10/cuda/CUDACachingAllocator.cpp, kMinLargeAlloc (10 MiB), kRoundLarge (2 MiB) and kSmallSize (1 MiB). Start
logs show it: Qwen 2.5 7B takes 57 MiB more than its tensors, phi-4 80 MiB, as counted here.
"""

from __future__ import annotations

from collections.abc import Iterable

from rackserve.domain.shape import Matrix
from rackserve.domain.weight_format import FORMATS

MIB = 1024**2
_LARGE = 10 * MIB
_SEGMENT = 2 * MIB
_KEPT = MIB
# Matrices that engines keep in one tensor, by the last part of their names.
_FUSED = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "gate_up", "up_proj": "gate_up"}


def rounding(size: int) -> int:
    """Bytes that a tensor of `size` bytes takes beyond them."""
    rest = -size % _SEGMENT
    return rest if size >= _LARGE and rest <= _KEPT else 0


def layer_rounding(matrices: Iterable[Matrix], quantization: str, tensor_parallel: int, item_bytes: int) -> int:
    """Bytes added to one layer's part on one GPU; all experts of a layer are one tensor."""
    tensors: dict[str, int] = {}
    for matrix in matrices:
        rows, columns = matrix.shard(tensor_parallel)
        stored = matrix.stored or (quantization if matrix.linear else "")
        bits = FORMATS[stored].bits if stored else item_bytes * 8
        prefix, _, last = matrix.name.rpartition(".")
        name = f"{prefix}.{_FUSED.get(last, last)}"
        tensors[name] = tensors.get(name, 0) + int(matrix.count * rows * columns * bits / 8)
    return sum(rounding(size) for size in tensors.values())
