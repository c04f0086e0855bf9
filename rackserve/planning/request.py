"""What is to be sized: one instance of a model on a group of equal GPUs, with everything the operator decided."""

from __future__ import annotations

from dataclasses import dataclass

from rackserve.domain.engine import Engine
from rackserve.domain.gpu import Gpu
from rackserve.domain.policy import DEFAULT_CEILING
from rackserve.domain.shape import Shape

# A host of GPUs that share NVLink or a PCIe root has eight of them at most, unless the inventory says otherwise
# (HGX and MI300X platforms).
HOST_GPUS = 8


@dataclass(frozen=True, slots=True)
class Request:
    """None or empty: rackserve decides.

    total_mib: memory of one GPU as the runtime sees it. gpus: cards of the group, of which each replica takes
    tensor_parallel x pipeline_parallel. quantization: a label of planning.quantize, empty for the checkpoint's own.
    offered: formats that checkpoints of this model are published in, where the choice is ours.
    files: GGUF files by quantization, with their bytes. file_parts: bytes of the embedding and of the output matrix in
    the one file there is, where its header was read; an output of 0 is the embedding.
    host_mib: RAM of the host, where layers may be offloaded to it; host_ceiling: the share of it that may be used.
    host_gpus: GPUs of one host, in which tensor parallelism stays. hosts: how many are known to take part.
    max_model_len, avg_tokens: tokens of prompt plus completion. concurrency: requests at the peak.
    utilization: the engine's own memory flag, in its own meaning. ceiling: share of the GPU's memory that this
    instance may use. shared_prompts: whether requests begin alike, None if nobody said.
    """

    model: str
    shape: Shape
    gpu: Gpu
    total_mib: int
    runtime: str
    version: str
    engine: Engine | None = None
    gpus: int = 1
    quantization: str = ""
    offered: tuple[str, ...] = ()
    files: tuple[tuple[str, int], ...] = ()
    file_parts: tuple[int, int] | None = None
    kv_cache_dtype: str = "auto"
    max_model_len: int | None = None
    concurrency: int | None = None
    avg_tokens: int | None = None
    utilization: float | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    batched_tokens: int | None = None
    ceiling: float = DEFAULT_CEILING
    host_mib: int | None = None
    host_ceiling: float = DEFAULT_CEILING
    host_gpus: int = HOST_GPUS
    hosts: int = 1
    shared_prompts: bool | None = None

    @property
    def total_bytes(self) -> int:
        """Bytes of one GPU as the runtime sees them."""
        return self.total_mib * 1024**2
