"""One instance of llama.cpp's engine on its GPUs and in the host's memory: bytes of each for a length and a split.

Layers that do not fit stay in the host's memory with their part of the context (-ngl); the embedding always does.
Each GPU holds a run of layers (split mode `layer`, equal shares), the last one the output matrix as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rackserve.planning.gguf_split import Held, LayerSums, runs
from rackserve.planning.gguf_weights import GgufWeights
from rackserve.planning.memory import (
    MIB,
    PROCESS_MIB,
    compute_bytes,
    context_bytes,
    kv_bytes_per_token,
    mask_bytes,
)
from rackserve.planning.request import Request
from rackserve.planning.sized import Sizing

# What a process takes on a GPU before it allocates anything: contexts of CUDA, HIP or Level Zero, and their
# libraries' workspaces.
_GPU_PROCESS_MIB = 640
# llama.cpp's pipeline of batches over GPUs (GGML_SCHED_MAX_COPIES).
_COPIES = 4
# Vendors whose only memory is the host's: nothing can be left behind in it.
ONE_MEMORY = ("none", "apple")


def resident(sizing: Sizing) -> bool:
    """Whether llama.cpp has all layers where it computes; False for the other engines."""
    plan = sizing.offload
    return plan is not None and (sizing.request.gpu.vendor in ONE_MEMORY or plan.share >= 1)


@dataclass(frozen=True, slots=True)
class GgufInstance:
    """What a request comes to with one quantization. sums: of its layers, which GPUs and host share."""

    request: Request
    quantization: str
    weights: GgufWeights
    slots: int
    kv: str
    ubatch: int
    sums: LayerSums

    @property
    def layers(self) -> int:
        """Layers of the model."""
        return len(self.request.shape.layers)

    @property
    def one_memory(self) -> bool:
        """Whether there is only the host's memory."""
        return self.request.gpu.vendor in ONE_MEMORY

    @property
    def process(self) -> int:
        """Bytes of the process where it computes."""
        return (PROCESS_MIB if self.one_memory else _GPU_PROCESS_MIB) * MIB

    @property
    def allowed(self) -> int:
        """Bytes of one GPU for weights, context and working memory."""
        return int(self.request.total_bytes * self.request.ceiling) - self.process

    @property
    def host_allowed(self) -> int:
        """Bytes of the host's memory that may be used; 0 where nobody said how much there is."""
        return int((self.request.host_mib or 0) * MIB * self.request.host_ceiling)

    def context(self, length: int) -> int:
        """Bytes of the context of all layers."""
        return context_bytes(self.request.shape, self.kv, length, self.slots, self.ubatch)

    def compute(self, length: int, *, partial: bool = False) -> int:
        """The compute buffer of one GPU.

        Several GPUs work on several batches, each with inputs of its own. With layers left on the host, activations
        cross over, and large batches have a host layer's widest matrix copied to the GPU (ggml-backend.cpp).
        """
        shape = self.request.shape
        size = compute_bytes(shape, self.kv, length, self.slots, self.ubatch)
        if self.request.gpus > 1:
            size += (_COPIES - 1) * mask_bytes(shape, length, self.slots, self.ubatch)
        if partial:
            size += 2 * shape.hidden * self.ubatch * 4 + self.weights.layers // self.layers
        return size

    def held(self, length: int, layers: int) -> Held:
        """Weights and context on the fullest GPU with this many layers on all of them."""
        if not self.one_memory:
            return self._fullest(length, layers)
        whole = self.weights.embedding + (0 if self.weights.tied else self.weights.output)
        token = kv_bytes_per_token(self.request.shape, self.kv)
        return Held(self.weights.layers + whole, self.context(length), token)

    def _fullest(self, length: int, layers: int) -> Held:
        cells, sums, best = self.sums.cells(self.kv, length, self.ubatch), self.sums, Held(0, 0, 0)
        for run in runs(self.layers, layers, self.request.gpus) if layers else ():
            weights = sums.weights_of(run.first, run.end) + (self.weights.output if run.output else 0)
            context = sums.context_of(run.first, run.end, cells, self.slots)
            if weights + context > best.weights + best.context:
                token = sums.per_token(run.first, run.end, self.kv)
                best = Held(math.ceil(weights), math.ceil(context), token)
        return best

    def gpu_bytes(self, length: int, layers: int) -> int:
        """Bytes of the fullest GPU with this many layers on all of them."""
        held = self.held(length, layers)
        return int(held.weights + held.context) + self.compute(length, partial=layers < self.layers)

    def host_bytes(self, length: int, layers: int) -> int:
        """Bytes in the host's memory: the other layers, their context, the embedding and the process."""
        left = self.layers - layers
        cells = self.sums.cells(self.kv, length, self.ubatch)
        own = self.sums.weights_of(0, left) + self.sums.context_of(0, left, cells, self.slots)
        return math.ceil(own) + self.weights.embedding + PROCESS_MIB * MIB

    def gpu_layers(self, length: int) -> int:
        """The most layers that the GPUs hold at this length.

        Not by halves: with unequal layers one more may move the boundaries so that the fullest GPU holds less.
        """
        if self.gpu_bytes(length, self.layers) <= self.allowed:
            return self.layers
        room = self.allowed - self.compute(length, partial=True)
        for layers in range(self.layers - 1, 0, -1):
            held = self.held(length, layers)
            if held.weights + held.context <= room:
                return layers
        return 0

    def offloads(self, length: int, layers: int) -> bool:
        """Whether the GPUs hold this many layers and the host's memory the others."""
        has_host = self.request.host_mib is not None and not self.one_memory
        return has_host and layers > 0 and self.host_bytes(length, layers) <= self.host_allowed
