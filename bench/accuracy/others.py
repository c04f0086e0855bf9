"""What other published methods say about the same cases.

hf-mem: its own code is run (HF_MEM_VERSION of its PyPI package, as tools/model_configs.sh unpacks it):
`resolve_kv_cache_dtype` and `compute_safetensors_kv_cache_size` of hf_mem/safetensors/kv_cache.py. Its weights are the
bytes of the checkpoint's tensors. It reads them from the model hub; here they are given to it (see each table), as no
checkpoint is downloaded.

GPUStack: estimate_model_vram in gpustack/policies/utils.py (GPUSTACK_REVISION), the formula of its documentation's page
on the compatibility check: bytes of the weight files x 1.2 + 2 GiB, whatever the context. A model is placed where this
is no more than the sum over the GPUs of total memory x --gpu-memory-utilization (vllm_resource_fit_selector.py).

Neither knows what tensor parallelism repeats on each GPU: their totals are divided by the number of GPUs.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.accuracy.spread import GIB

HF_MEM = Path(__file__).parents[2] / "build" / "hf-mem"
HF_MEM_VERSION = "0.5.6"
GPUSTACK_REVISION = "a87144c57065"
_GPUSTACK_FACTOR, _GPUSTACK_FOOTPRINT = 1.2, 2 * GIB
# accuracy/accuracy_report.md of llm-d-planner's pull request 205, in two of its revisions: revision, runs, and the mean
# absolute errors of weights and KV cache memory. vLLM 0.19.0 on H100; quoted, not run again.
LLM_D_PLANNER = (("f3265ef3200c", 49, 0.84, 7.82), ("875a4fd609ee", 53, 0.89, 6.62))


@dataclass(frozen=True, slots=True)
class Serving:
    """One case as the other methods see it: the checkpoint and its config, and how it is served.

    budget: bytes that the instance may take on each GPU, its share of memory.
    """

    config: Mapping[str, Any]
    checkpoint: int
    gpus: int
    kv_cache_dtype: str
    fp8_checkpoint: bool = False
    budget: float = 0.0

    def within(self, budget: float) -> Serving:
        """The same with a share of memory."""
        return replace(self, budget=budget)


def weights_per_gpu(serving: Serving) -> float:
    """Both methods' bytes of weights on one GPU."""
    return serving.checkpoint / serving.gpus


def gpustack_claim(checkpoint: int) -> int:
    """GPUStack's bytes of VRAM for a checkpoint of so many bytes, on all GPUs together."""
    return int(checkpoint * _GPUSTACK_FACTOR) + _GPUSTACK_FOOTPRINT


def gpustack_fits(serving: Serving) -> bool:
    """Whether GPUStack would place it."""
    return gpustack_claim(serving.checkpoint) <= serving.budget * serving.gpus


def hf_mem_kv_bytes(serving: Serving, length: int) -> int | None:
    """hf-mem's KV cache of one request of `length` tokens on all GPUs together; None where it gives none."""
    config = _text_config(serving.config)
    if not all(key in config for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")):
        return None
    code, metadata = _hf_mem("kv_cache"), _hf_mem("metadata")
    dtype = "F8_E4M3" if serving.fp8_checkpoint else "BF16"
    component = metadata.ComponentMetadata({dtype: metadata.DtypeMetadata(0, 0)}, 0, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cache_dtype = code.resolve_kv_cache_dtype(
                config, serving.kv_cache_dtype, metadata.SafetensorsMetadata({"Transformer": component}, 0, 0), "model"
            )
            return int(code.compute_safetensors_kv_cache_size(config, cache_dtype, length))
        except (RuntimeError, TypeError):  # what it says it does not support, and nulls that it stumbles over
            return None


def hf_mem_tokens(serving: Serving, kv_bytes: float, length: int) -> float | None:
    """Tokens that `kv_bytes` on each GPU hold at hf-mem's bytes per token."""
    request = hf_mem_kv_bytes(serving, length)
    return kv_bytes * serving.gpus / request * length if request else None


def hf_mem_fits(serving: Serving, length: int) -> bool | None:
    """Whether weights and one request's KV cache are within the instance's share; hf-mem itself decides nothing."""
    request = hf_mem_kv_bytes(serving, length)
    return None if request is None else serving.checkpoint + request <= serving.budget * serving.gpus


def _text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """As hf_mem/run.py chooses it: the text model's table, with the outer data type and quantization."""
    architectures = config.get("architectures") or []
    if "text_config" not in config or not any("ForConditionalGeneration" in name for name in architectures):
        return dict(config)
    text = dict(config["text_config"])
    for key in ("dtype", "torch_dtype", "quantization_config"):
        if key in config and key not in text:
            text[key] = config[key]
    return text


def _hf_mem(module: str) -> ModuleType:
    """A module of hf_mem.safetensors, without the packages' __init__, which wants an HTTP client."""
    if "hf_mem" not in sys.modules:
        version = HF_MEM / "hf_mem" / "_version.py"
        if not version.is_file():
            message = f"{HF_MEM} holds no hf-mem: run tools/model_configs.sh"
            raise SystemExit(message)
        for name, folder in (("hf_mem", "hf_mem"), ("hf_mem.safetensors", "hf_mem/safetensors")):
            package = ModuleType(name)
            package.__path__ = [str(HF_MEM / folder)]
            sys.modules[name] = package
    return importlib.import_module(f"hf_mem.safetensors.{module}")


def read_json(path: Path) -> dict[str, Any]:
    """A config.json as it is."""
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values
