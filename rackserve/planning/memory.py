"""What one llama.cpp service occupies in RAM. All results are MiB, rounded up, so that a yes is safe.

llama.cpp maps the weights, allocates the whole KV cache at start, and one compute buffer for its largest batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rackserve.domain.model import Architecture, GgufFile

MIB = 1024**2

# Bytes per element: ggml's blocks of 32 are 34 bytes (q8_0) and 18 bytes (q4_0). Source: ggml-common.h.
KV_BYTES_PER_ELEMENT = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}

# llama-server's default physical batch (`--ubatch-size`), which the unit states.
UBATCH_TOKENS = 512

# Program, libraries, tokenizer and HTTP threads of an idle llama-server, measured as resident memory less weights,
# KV cache and compute buffer, rounded up.
PROCESS_MIB = 64


@dataclass(frozen=True, slots=True)
class Footprint:
    """MiB of one service, by what it is for."""

    weights_mib: int
    kv_cache_mib: int
    compute_mib: int
    process_mib: int = PROCESS_MIB

    @property
    def total_mib(self) -> int:
        """What the service needs to hold in RAM at once."""
        return self.weights_mib + self.kv_cache_mib + self.compute_mib + self.process_mib

    @property
    def limit_mib(self) -> int:
        """The unit's MemoryMax: a quarter of the weights on top.

        The page cache of mapped weights is charged to the unit's cgroup while the file is read in; a limit at the
        exact need makes the kernel reclaim pages that are read again at once.
        """
        return self.total_mib + math.ceil(self.weights_mib / 4)


def kv_bytes_per_token(architecture: Architecture, kv_cache_dtype: str) -> float:
    """Bytes of KV cache that one token takes over all layers (keys and values may differ in length)."""
    elements = architecture.kv_heads * (architecture.key_length + architecture.value_length)
    return architecture.layers * elements * KV_BYTES_PER_ELEMENT[kv_cache_dtype]


def compute_mib(architecture: Architecture, context_per_slot: int) -> int:
    """MiB of the compute buffer for one physical batch: its logits, its activations and its attention mask.

    An upper bound: Llama 3.3 70B at 8192 tokens and 512 batched ones is 282 MiB by `llama-fit-params`, 330 here.
    """
    logits = UBATCH_TOKENS * architecture.vocab_size * 4
    activations = UBATCH_TOKENS * architecture.embedding_length * 4 * 4
    mask = UBATCH_TOKENS * context_per_slot * 4
    return math.ceil((logits + activations + mask) / MIB)


def footprint(
    architecture: Architecture, gguf: GgufFile, *, kv_cache_dtype: str, context_per_slot: int, slots: int
) -> Footprint:
    """MiB that one service needs: `slots` concurrent requests of at most `context_per_slot` tokens each."""
    cells = context_per_slot * slots
    return Footprint(
        weights_mib=math.ceil(gguf.size_bytes / MIB),
        kv_cache_mib=math.ceil(cells * kv_bytes_per_token(architecture, kv_cache_dtype) / MIB),
        compute_mib=compute_mib(architecture, context_per_slot),
    )
