"""Size one instance of llama.cpp, Ollama or LM Studio: all layers on the GPUs, part of them, or none. Pure and offline.

Layers that do not fit stay in the host's memory with their part of the context (-ngl); the embedding always does.
Each GPU holds a run of layers (split mode `layer`), the last one the output matrix as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from rackserve.domain.policy import KV_HEADROOM, USABLE_SHARE
from rackserve.domain.service import DEFAULT_SLOTS
from rackserve.domain.shape import Cache, CompressedCache
from rackserve.planning.budget import GIB, Budget
from rackserve.planning.gguf_weights import MIXES, GgufWeights, gguf_weights, read_weights
from rackserve.planning.memory import (
    CELL_STEP,
    KV_BYTES_PER_ELEMENT,
    MIB,
    MOST_SLOTS,
    PROCESS_MIB,
    UBATCH_TOKENS,
    compute_bytes,
    context_bytes,
    kv_bytes_per_token,
    mask_bytes,
)
from rackserve.planning.parallel import Parallel
from rackserve.planning.request import Request
from rackserve.planning.sized import Offload, Sizing

# What a process takes on a GPU before it allocates anything: contexts of CUDA, HIP or Level Zero, and their
# libraries' workspaces.
_GPU_PROCESS_MIB = 640
_DEFAULT = "Q4_K_M"
# A window that is still useful: rather than less than this, layers are left in the host's memory.
_USEFUL_TOKENS = 8192
# llama.cpp's pipeline of batches over GPUs (GGML_SCHED_MAX_COPIES).
_COPIES = 4
_NO_GPU = ("none", "apple")


@dataclass(frozen=True, slots=True)
class _Instance:
    request: Request
    quantization: str
    weights: GgufWeights
    slots: int
    kv: str
    ubatch: int

    @property
    def layers(self) -> int:
        return len(self.request.shape.layers)

    @property
    def allowed(self) -> int:
        """Bytes of one GPU for weights, context and working memory."""
        process = PROCESS_MIB if self.request.gpu.vendor in _NO_GPU else _GPU_PROCESS_MIB
        return int(self.request.total_bytes * self.request.ceiling) - process * MIB

    def context(self, length: int) -> int:
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

    def gpu_bytes(self, length: int, layers: int) -> int:
        """Bytes of the fullest GPU with this many layers on all of them."""
        share = math.ceil(layers / self.request.gpus) / self.layers
        own = self.weights.layers * share + self.context(length) * share
        whole = self.weights.output if layers else 0
        if self.request.gpu.vendor in _NO_GPU:
            whole = self.weights.embedding + (0 if self.weights.tied else self.weights.output)
        return math.ceil(own) + whole + self.compute(length, partial=layers < self.layers)

    def host_bytes(self, length: int, layers: int) -> int:
        """Bytes in the host's memory: the other layers, their context, the embedding and the process."""
        share = (self.layers - layers) / self.layers
        return (
            math.ceil((self.weights.layers + self.context(length)) * share) + self.weights.embedding + PROCESS_MIB * MIB
        )

    def gpu_layers(self, length: int) -> int:
        """The most layers that the GPUs hold at this length."""
        low, high = 0, self.layers
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.gpu_bytes(length, middle) <= self.allowed else (low, middle - 1)
        return low

    def host_allowed(self) -> int:
        """Bytes of the host's memory that may be used; 0 where nobody said how much there is."""
        return int((self.request.host_mib or 0) * MIB * self.request.ceiling)


def size_gguf(request: Request) -> Sizing | str:
    """The sizing of this request, or why it cannot be asked for."""
    nominal = request.shape.context_length
    if request.max_model_len is not None and request.max_model_len > nominal:
        return f"max_model_len {request.max_model_len} is asked for, {request.model} was made for {nominal}"
    if any(isinstance(cache, CompressedCache) or cache_has_indexer(cache) for cache in request.shape.caches):
        return f"{request.runtime} has no attention of the kind that {request.shape.architecture} needs"
    if (request.concurrency or 1) > MOST_SLOTS:
        return f"concurrency {request.concurrency}: {request.runtime} has at most {MOST_SLOTS} slots"
    kv = {"auto": "f16"}.get(request.kv_cache_dtype, request.kv_cache_dtype)
    if kv not in KV_BYTES_PER_ELEMENT:
        return f"kv_cache_dtype {kv} is not known to {request.runtime}; known: auto, {', '.join(KV_BYTES_PER_ELEMENT)}"
    names = _candidates(request)
    sized: Sizing | str = f"{request.model} has no file for {request.runtime}"
    for name in names:
        instance = _instance(request, name, kv)
        sized = instance if isinstance(instance, str) else _size(instance)
        if isinstance(sized, Sizing) and sized.fits and sized.offload and sized.offload.share >= 1:
            return sized
    return sized if len(names) == 1 or isinstance(sized, str) else _best(request, names, kv)


def cache_has_indexer(cache: Cache) -> bool:
    """Whether a layer chooses what it attends to, which llama.cpp 0.5 cannot."""
    return bool(getattr(cache, "indexer", 0))


def _best(request: Request, names: tuple[str, ...], kv: str) -> Sizing | str:
    """Where none fits on the GPUs: the preferred one, with layers in the host's memory or with what it lacks."""
    instance = _instance(request, names[0], kv)
    return instance if isinstance(instance, str) else _size(instance)


def _candidates(request: Request) -> tuple[str, ...]:
    if request.quantization:
        return (request.quantization,)
    return tuple(name for name, _ in request.files) or (_DEFAULT,)


def _instance(request: Request, name: str, kv: str) -> _Instance | str:
    sizes = dict(request.files)
    if request.shape.quantization and not sizes:
        found = "MXFP4" if "mxfp4" in request.shape.quantization else ""
        name = found or name
    if request.offered and name not in request.offered:
        return f"{request.model} has no {name}; it has {', '.join(request.offered)}"
    if request.file_parts is not None:
        weights: GgufWeights | None = read_weights(sizes[name], *request.file_parts)
    else:
        weights = gguf_weights(request.shape, name, sizes.get(name))
    if weights is None:
        return f"quantization {name} is not known for {request.runtime}; known: {', '.join(MIXES)}"
    ubatch = request.batched_tokens or UBATCH_TOKENS
    return _Instance(request, name, weights, request.concurrency or DEFAULT_SLOTS, kv, ubatch)


def _size(instance: _Instance) -> Sizing:
    request = instance.request
    length, why = _length(instance)
    layers = instance.layers if request.gpu.vendor in _NO_GPU else instance.gpu_layers(length)
    needed = instance.gpu_bytes(length, instance.layers)
    host = 0 if request.gpu.vendor in _NO_GPU else instance.host_bytes(length, layers)
    missing = max(0, needed - instance.allowed)
    has_host = request.gpu.vendor not in _NO_GPU and request.host_mib is not None
    offloaded = missing > 0 and layers > 0 and has_host and host <= instance.host_allowed()
    return _sizing(instance, length, why, layers=layers, host=host, missing=0 if offloaded else missing)


def _length(instance: _Instance) -> tuple[int, str]:
    """max_model_len and why: as asked for, 80 % of the nominal context, or the longest that fits beside all layers."""
    request, nominal = instance.request, instance.request.shape.context_length
    if request.max_model_len is not None:
        return request.max_model_len, "asked for"
    wanted = max(CELL_STEP, int(nominal * USABLE_SHARE) // CELL_STEP * CELL_STEP)
    least = math.ceil(KV_HEADROOM * (request.avg_tokens or 1) / CELL_STEP) * CELL_STEP
    if instance.gpu_bytes(wanted, instance.layers) <= instance.allowed:
        return max(wanted, min(least, nominal)), f"{USABLE_SHARE:.0%} of the nominal {nominal}"
    longest = _longest(least, wanted, lambda tokens: instance.gpu_bytes(tokens, instance.layers) <= instance.allowed)
    if longest >= min(_USEFUL_TOKENS, wanted):
        return longest, f"the longest that fits; {USABLE_SHARE:.0%} of the nominal {nominal} does not"
    useful = max(least, min(_USEFUL_TOKENS, wanted))
    return useful, "not all layers fit beside a useful context"


def _longest(least: int, most: int, fits: Callable[[int], bool]) -> int:
    low, high = least // CELL_STEP - 1, most // CELL_STEP
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * CELL_STEP) else (low, middle - 1)
    return low * CELL_STEP


def _sizing(instance: _Instance, length: int, why: str, *, layers: int, host: int, missing: int) -> Sizing:
    request = instance.request
    shown = layers if missing == 0 else instance.layers
    share = math.ceil(shown / request.gpus) / instance.layers
    context = math.ceil(instance.context(length) * share)
    compute = instance.compute(length, partial=shown < instance.layers)
    weights = instance.gpu_bytes(length, shown) - compute - context
    process = (PROCESS_MIB if request.gpu.vendor in _NO_GPU else _GPU_PROCESS_MIB) * MIB
    total = request.total_bytes
    kv_left = instance.allowed - weights - compute
    return Sizing(
        fits=missing == 0,
        missing_bytes=missing,
        request=request,
        quantization=instance.quantization,
        weight_format=instance.quantization,
        parallel=Parallel(1, request.gpus, 1, _split_reason(request)),
        max_model_len=length,
        max_num_seqs=instance.slots,
        max_num_batched_tokens=instance.ubatch,
        utilization=round((weights + compute + context + process) / total, 4) if total else 0.0,
        weights_bytes=weights,
        stage=Budget(total, weights, compute, process, 0, kv_left),
        kv_bytes_per_token=kv_bytes_per_token(request.shape, instance.kv) * share,
        kv_cache_bytes=context,
        kv_cache_tokens=length * instance.slots,
        max_concurrency=float(instance.slots),
        needed_bytes=context,
        demand=(instance.slots, length),
        length_reason=why,
        batch_reason="one for each concurrent request" if request.concurrency else "the default",
        reasons=(_quantization_reason(instance), _split_reason(request), _layers_reason(instance, layers, host)),
        warnings=_warnings(instance, layers, missing),
        offload=Offload(layers, instance.layers, host),
    )


def _quantization_reason(instance: _Instance) -> str:
    size = instance.weights.file / GIB
    why = "asked for" if instance.request.quantization else "the first of its files that fits"
    if not instance.request.quantization and not instance.request.files:
        why = "the usual one where nobody chose"
    return f"quantization {instance.quantization}, {size:.2f} GiB of weights: {why}"


def _split_reason(request: Request) -> str:
    return "one GPU" if request.gpus == 1 else f"layers split over {request.gpus} GPUs"


def _layers_reason(instance: _Instance, layers: int, host: int) -> str:
    if instance.request.gpu.vendor in _NO_GPU:
        return "all layers in the host's memory"
    text = f"{layers} of {instance.layers} layers on the GPU"
    return f"{text}, {host / GIB:.2f} GiB in the host's memory (embedding, and layers that are left)"


def _warnings(instance: _Instance, layers: int, missing: int) -> tuple[str, ...]:
    request, warnings = instance.request, []
    if not request.files:
        warnings.append("no GGUF file is listed for this model: the size of its weights is an estimate")
    if request.gpu.vendor not in _NO_GPU and layers < instance.layers:
        if missing:
            needed = instance.host_bytes(request.max_model_len or _USEFUL_TOKENS, layers) / GIB
            split = f"{layers} layers could run on the GPU and {needed:.1f} GiB in the host's memory"
            warnings.append(f"with memory_mib stated, {split}")
        else:
            warnings.append(f"{instance.layers - layers} layers run on the CPU: expect a fraction of the GPU's speed")
    return tuple(warnings)
