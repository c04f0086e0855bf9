"""What each paged engine calls the type of its KV cache, and how many bytes an element of it has."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from rackserve.domain.gpu import Gpu

# The engine's own names by every name that is understood; one that an engine lacks stops it at the start.
# vLLM 0.33 config/cache.py CacheDType; SGLang 0.5.23 server_args.py; TensorRT-LLM 1.2 llmapi KvCacheConfig.dtype.
_NAMES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "vllm": {
            "fp8": "fp8",
            "fp8_e4m3": "fp8_e4m3",
            "fp8_e5m2": "fp8_e5m2",
            "bf16": "bfloat16",
            "bfloat16": "bfloat16",
            "fp16": "float16",
            "float16": "float16",
        },
        "sglang": {
            "fp8": "fp8_e4m3",
            "fp8_e4m3": "fp8_e4m3",
            "fp8_e5m2": "fp8_e5m2",
            "bf16": "bf16",
            "bfloat16": "bf16",
        },
        "tensorrt-llm": {"fp8": "fp8", "fp8_e4m3": "fp8"},
    }
)
_FP8 = 1.0
# FP8 caches need conversions that NVIDIA has from Ampere on in vLLM's kernels.
_FP8_CAPABILITY = (8, 0)


def kv_type(runtime: str, dtype: str) -> str | None:
    """What the engine calls this type, None where it has none of the kind."""
    return "auto" if dtype.lower() == "auto" else _NAMES[runtime].get(dtype.lower())


def type_bytes(dtype: str) -> float | None:
    """Bytes of one element of a type by any of its names."""
    if dtype.startswith("fp8"):
        return _FP8
    return 2.0 if dtype in _NAMES["vllm"] else None


def kv_type_problem(runtime: str, dtype: str, gpu: Gpu) -> str:
    """Why this engine cannot keep its cache in this type on this GPU, empty if it can."""
    if kv_type(runtime, dtype) is None:
        known = ", ".join(("auto", *_NAMES[runtime]))
        return f"kv_cache_dtype {dtype} is not known to {runtime}; known: {known}"
    if not dtype.lower().startswith("fp8"):
        return _in_ram_problem(dtype) if gpu.vendor == "none" else ""
    capability = gpu.compute_capability
    if capability is not None and capability < _FP8_CAPABILITY:
        return f"kv_cache_dtype {dtype} needs compute capability 8.0, {gpu.name} is {gpu.target}"
    if gpu.vendor == "amd" and "fp8" not in gpu.formats:
        return f"kv_cache_dtype {dtype} needs a GPU with fp8, {gpu.name} is {gpu.target}"
    return ""


def _in_ram_problem(dtype: str) -> str:
    """The CPU's attention knows the model's own type and FP8 (vLLM 0.33 v1/attention/backends/cpu_attn.py)."""
    if dtype.lower() == "auto":
        return ""
    return f"kv_cache_dtype {dtype} is not known to vllm on the CPU; known: auto, fp8, fp8_e4m3, fp8_e5m2"
