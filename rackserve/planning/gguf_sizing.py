"""Size one instance of llama.cpp, Ollama or LM Studio: all layers on the GPUs, part of them, or none. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from rackserve.domain.service import DEFAULT_SLOTS
from rackserve.domain.shape import Cache, CompressedCache
from rackserve.planning.budget import GIB, Budget
from rackserve.planning.gguf_instance import GgufInstance, resident
from rackserve.planning.gguf_lengths import chosen_length
from rackserve.planning.gguf_split import layer_sums
from rackserve.planning.gguf_weights import MIXES, weights_of
from rackserve.planning.lengths import avg_tokens_problem
from rackserve.planning.memory import KV_BYTES_PER_ELEMENT, MOST_SLOTS, UBATCH_TOKENS
from rackserve.planning.parallel import Parallel
from rackserve.planning.request import Request
from rackserve.planning.sized import Offload, Sizing

_DEFAULT = "Q4_K_M"
_LM_STUDIO = "lmstudio"


def size_gguf(request: Request) -> Sizing | str:
    """The sizing of this request, or why it cannot be asked for."""
    request = _spelled(request)
    problem = _problem(request)
    if problem:
        return problem
    sized: Sizing | str = f"{request.model} has no file for {request.runtime}"
    preferred: Sizing | None = None
    for name in _candidates(request):
        instance = _instance(request, name)
        sized = instance if isinstance(instance, str) else _size(instance)
        if isinstance(sized, str):
            return sized
        if sized.fits and resident(sized):
            return sized
        preferred = preferred or sized
    # Where none fits on the GPUs: the preferred one, with layers in the host's memory or with what it lacks.
    return preferred or sized


def _spelled(request: Request) -> Request:
    """With names as llama.cpp spells them, whatever their case."""
    known = (*request.offered, *(name for name, _ in request.files), *MIXES)
    return replace(
        request,
        quantization=_as_in(known, request.quantization),
        kv_cache_dtype=_as_in(("auto", *KV_BYTES_PER_ELEMENT), request.kv_cache_dtype),
    )


def _as_in(known: Iterable[str], name: str) -> str:
    return next((entry for entry in known if entry.lower() == name.lower()), name)


def _problem(request: Request) -> str:
    """Why nothing of the kind can be asked for, whatever the memory; empty if it can."""
    nominal, runtime, kv = request.shape.context_length, request.runtime, request.kv_cache_dtype
    if request.max_model_len is not None and request.max_model_len > nominal:
        return f"max_model_len {request.max_model_len} is asked for, {request.model} was made for {nominal}"
    if any(isinstance(cache, CompressedCache) or cache_has_indexer(cache) for cache in request.shape.caches):
        return f"{runtime} has no attention of the kind that {request.shape.architecture} needs"
    if (request.concurrency or 1) > MOST_SLOTS:
        return f"concurrency {request.concurrency}: {runtime} has at most {MOST_SLOTS} slots"
    if kv not in ("auto", *KV_BYTES_PER_ELEMENT):
        return f"kv_cache_dtype {kv} is not known to {runtime}; known: auto, {', '.join(KV_BYTES_PER_ELEMENT)}"
    told = _untold(request) if runtime == _LM_STUDIO else ""
    return told or avg_tokens_problem(request.avg_tokens, request.max_model_len, nominal)


def _untold(request: Request) -> str:
    """What `lms load` cannot be told: the type of the cache, and more context for all requests than the model has."""
    others = "or runtime llama.cpp or ollama would do"
    if request.kv_cache_dtype not in {"auto", "f16"}:
        return f"kv_cache_dtype {request.kv_cache_dtype} cannot be told to lms load; auto, f16, {others}"
    each, nominal = request.max_model_len or request.avg_tokens or 1, request.shape.context_length
    if each * (request.concurrency or 1) > nominal:
        shared = f"with lms load requests share one context of at most {nominal} tokens"
        return f"concurrency {request.concurrency} x {each} tokens: {shared}; fewer or shorter ones, {others}"
    return ""


def cache_has_indexer(cache: Cache) -> bool:
    """Whether a layer chooses what it attends to, which llama.cpp 0.5 cannot."""
    return bool(getattr(cache, "indexer", 0))


def _candidates(request: Request) -> tuple[str, ...]:
    if request.quantization:
        return (request.quantization,)
    return tuple(name for name, _ in request.files) or (_DEFAULT,)


def _instance(request: Request, name: str) -> GgufInstance | str:
    if request.shape.quantization and not request.files:
        found = "MXFP4" if "mxfp4" in request.shape.quantization else ""
        name = found or name
    if request.offered and name not in request.offered:
        return f"{request.model} has no {name}; it has {', '.join(request.offered)}"
    weights = weights_of(request, name)
    if weights is None:
        return f"quantization {name} is not known for {request.runtime}; known: {', '.join(MIXES)}"
    slots = request.concurrency or (1 if request.runtime == _LM_STUDIO else DEFAULT_SLOTS)
    kv = "f16" if request.kv_cache_dtype == "auto" else request.kv_cache_dtype
    ubatch = request.batched_tokens or UBATCH_TOKENS
    return GgufInstance(request, name, weights, slots, kv, ubatch, layer_sums(request.shape, name, weights))


def _size(instance: GgufInstance) -> Sizing:
    length, why = chosen_length(instance)
    layers = instance.layers if instance.one_memory else instance.gpu_layers(length)
    missing = max(0, instance.gpu_bytes(length, instance.layers) - instance.allowed)
    left = missing > 0 and instance.offloads(length, layers)
    return _sizing(instance, length, why, layers=layers, missing=0 if left else missing)


def _sizing(instance: GgufInstance, length: int, why: str, *, layers: int, missing: int) -> Sizing:
    request = instance.request
    shown = layers if missing == 0 else instance.layers
    held = instance.held(length, shown)
    weights, context = int(held.weights), int(held.context)
    compute = instance.compute(length, partial=shown < instance.layers)
    used = weights + context + compute + instance.process
    total = request.total_bytes
    plan = _offload(instance, length, layers, used)
    return Sizing(
        fits=missing == 0,
        missing_bytes=missing,
        request=request,
        quantization=instance.quantization,
        weight_format=instance.quantization,
        parallel=Parallel(1, request.gpus, 1, _split_reason(instance)),
        max_model_len=length,
        max_num_seqs=instance.slots,
        max_num_batched_tokens=instance.ubatch,
        utilization=round(used / total, 4) if total else 0.0,
        weights_bytes=weights,
        stage=Budget(total, weights, compute, instance.process, 0, instance.allowed - weights - compute),
        kv_bytes_per_token=held.per_token,
        kv_cache_bytes=context,
        kv_cache_tokens=length * instance.slots,
        max_concurrency=float(instance.slots),
        needed_bytes=context,
        demand=(instance.slots, length),
        length_reason=why,
        batch_reason=_slots_reason(request),
        reasons=(_quantization_reason(instance), *_places(instance, plan)),
        warnings=_warnings(instance, length, layers, missing),
        offload=plan,
        short_reason=_short_reason(instance, length, layers, missing),
    )


def _offload(instance: GgufInstance, length: int, layers: int, used: int) -> Offload:
    """Layers on GPUs, and bytes in the host's memory, which without a GPU are all that is used."""
    if instance.request.gpu.vendor == "none":
        return Offload(0, instance.layers, used)
    return Offload(layers, instance.layers, 0 if instance.one_memory else instance.host_bytes(length, layers))


def _short_reason(instance: GgufInstance, length: int, layers: int, missing: int) -> str:
    """Where the GPUs could leave layers in the host's memory, what that lacks."""
    if not missing or not layers or instance.one_memory or instance.request.host_mib is None:
        return ""
    needed, allowed = instance.host_bytes(length, layers) / GIB, instance.host_allowed / GIB
    cards = "the GPU holds" if instance.request.gpus == 1 else "the GPUs hold"
    return (
        f"{cards} {layers} of {instance.layers} layers, for the others {needed:.2f} GiB of the host's memory are "
        f"needed, {allowed:.2f} GiB of memory_mib may be used"
    )


def _slots_reason(request: Request) -> str:
    if request.runtime == _LM_STUDIO:
        return "parts of the one context that lms load makes"
    return "one for each concurrent request" if request.concurrency else "the default"


def _quantization_reason(instance: GgufInstance) -> str:
    size = instance.weights.file / GIB
    why = "asked for" if instance.request.quantization else "the first of its files that fits"
    if not instance.request.quantization and not instance.request.files:
        why = "the usual one where nobody chose"
    return f"quantization {instance.quantization}, {size:.2f} GiB of weights: {why}"


def _split_reason(instance: GgufInstance) -> str:
    if instance.request.gpu.vendor == "none":
        return "the host's memory"
    return "one GPU" if instance.request.gpus == 1 else f"layers split over {instance.request.gpus} GPUs"


def _places(instance: GgufInstance, plan: Offload) -> tuple[str, ...]:
    """Where the layers are, in words."""
    split, whole = _split_reason(instance), "all layers in the host's memory"
    if instance.one_memory:
        return (whole,) if instance.request.gpu.vendor == "none" else (split, whole)
    gpus = "the GPU" if instance.request.gpus == 1 else "the GPUs"
    text = f"{plan.gpu_layers} of {instance.layers} layers on {gpus}"
    host = f"{plan.host_bytes / GIB:.2f} GiB in the host's memory (embedding, and layers that are left)"
    return split, f"{text}, {host}"


def _warnings(instance: GgufInstance, length: int, layers: int, missing: int) -> tuple[str, ...]:
    request, warnings = instance.request, []
    if not request.files:
        warnings.append("no GGUF file is listed for this model: the size of its weights is an estimate")
    if instance.one_memory or layers == instance.layers:
        return tuple(warnings)
    if missing == 0:
        warnings.append(f"{instance.layers - layers} layers run on the CPU: expect a fraction of the GPU's speed")
    elif request.host_mib is None and layers:
        needed = instance.host_bytes(length, layers) / GIB
        split = f"{layers} layers could run on the GPU and {needed:.1f} GiB in the host's memory"
        warnings.append(f"with memory_mib stated, {split}")
    return tuple(warnings)
