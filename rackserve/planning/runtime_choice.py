"""Which runtime serves a model where the operator named none. Pure."""

from __future__ import annotations

from rackserve.domain.gpu import Gpu
from rackserve.domain.model import LanguageModel
from rackserve.domain.service import Service

_VLLM_FROM = (7, 5)


def chosen_runtime(service: Service, gpu: Gpu, model: LanguageModel) -> str:
    """The one asked for; else vLLM, the production default, on cards that it is built for; else llama.cpp."""
    if service.runtime is not None:
        return service.runtime
    return default_runtime(gpu, has_checkpoint=bool(model.checkpoints) or not model.gguf)


def default_runtime(gpu: Gpu, *, has_checkpoint: bool = True) -> str:
    """The default: vLLM where it runs (compute capability 7.5 on, AMD's cards), else llama.cpp."""
    capability = gpu.compute_capability
    runs = gpu.vendor == "amd" or (capability is not None and capability >= _VLLM_FROM)
    return "vllm" if runs and has_checkpoint else "llama.cpp"
