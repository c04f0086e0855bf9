"""The command line that a sizing becomes, for every runtime: each planned limit that it has a flag for is stated.

These are the flags that planning decides. What a runtime takes from a file (Ollama's model and GPU layers,
TensorRT-LLM's type of KV cache) and what else a unit needs (keys, metrics, folders) comes with its own module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rackserve.domain.model import LanguageModel
from rackserve.planning.kv_types import kv_type
from rackserve.planning.sized import Sizing


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What is served under which name, and where. `model` is a repository or a path."""

    name: str
    model: str
    host: str = "127.0.0.1"
    port: int = 8001


def endpoint_of(sizing: Sizing, name: str, model: LanguageModel, host: str, port: int) -> Endpoint:
    """Where a catalogue model is loaded from: the checkpoint in the planned format, or the one that is converted."""
    if sizing.offload is not None:
        files = {gguf.quantization: gguf.file for gguf in model.gguf}
        return Endpoint(name, files.get(sizing.quantization, gguf_name(model.name, sizing)), host, port)
    wanted = "none" if sizing.converted else sizing.weight_format or "none"
    repos = {checkpoint.quantization: checkpoint.repo for checkpoint in model.checkpoints}
    return Endpoint(name, repos.get(wanted, model.repo), host, port)


def gguf_name(model: str, sizing: Sizing) -> str:
    """What a file that nobody has listed would be called."""
    return f"{model}-{sizing.quantization}.gguf"


def argv(sizing: Sizing, endpoint: Endpoint) -> tuple[str, ...]:
    """The command line, one word per element. For Ollama and LM Studio, which take settings elsewhere, see those."""
    return _COMMANDS[sizing.request.runtime](sizing, endpoint)


def _kv_type(sizing: Sizing) -> str:
    return kv_type(sizing.request.runtime, sizing.request.kv_cache_dtype) or sizing.request.kv_cache_dtype


def _vllm(sizing: Sizing, endpoint: Endpoint) -> tuple[str, ...]:
    quantization = ("--quantization", "fp8") if sizing.converted else ()
    prefix = "--enable-prefix-caching" if sizing.prefix_caching else "--no-enable-prefix-caching"
    return (
        *("vllm", "serve", endpoint.model, "--served-model-name", endpoint.name),
        *("--host", endpoint.host, "--port", str(endpoint.port)),
        *("--max-model-len", str(sizing.max_model_len)),
        *("--max-num-seqs", str(sizing.max_num_seqs)),
        *("--max-num-batched-tokens", str(sizing.max_num_batched_tokens)),
        *("--gpu-memory-utilization", f"{sizing.utilization:g}"),
        *("--tensor-parallel-size", str(sizing.parallel.tensor)),
        *("--pipeline-parallel-size", str(sizing.parallel.pipeline)),
        *("--kv-cache-dtype", _kv_type(sizing)),
        *quantization,
        prefix,
    )


def _sglang(sizing: Sizing, endpoint: Endpoint) -> tuple[str, ...]:
    quantization = ("--quantization", "fp8") if sizing.converted else ()
    return (
        *("python", "-m", "sglang.launch_server", "--model-path", endpoint.model),
        *("--served-model-name", endpoint.name, "--host", endpoint.host, "--port", str(endpoint.port)),
        *("--context-length", str(sizing.max_model_len)),
        *("--max-running-requests", str(sizing.max_num_seqs)),
        *("--chunked-prefill-size", str(sizing.max_num_batched_tokens)),
        *("--mem-fraction-static", f"{sizing.utilization:g}"),
        *("--tp-size", str(sizing.parallel.tensor), "--pp-size", str(sizing.parallel.pipeline)),
        *("--kv-cache-dtype", _kv_type(sizing)),
        *quantization,
        *(() if sizing.prefix_caching else ("--disable-radix-cache",)),
    )


def _tensorrt(sizing: Sizing, endpoint: Endpoint) -> tuple[str, ...]:
    return (
        *("trtllm-serve", endpoint.model, "--host", endpoint.host, "--port", str(endpoint.port)),
        *("--max_seq_len", str(sizing.max_model_len)),
        *("--max_batch_size", str(sizing.max_num_seqs)),
        *("--max_num_tokens", str(sizing.max_num_batched_tokens)),
        *("--free_gpu_memory_fraction", f"{sizing.utilization:g}"),
        *("--tp_size", str(sizing.parallel.tensor), "--pp_size", str(sizing.parallel.pipeline)),
        "--fail_fast_on_attention_window_too_large",
    )


def _llama_server(sizing: Sizing, endpoint: Endpoint) -> tuple[str, ...]:
    plan = sizing.offload
    # llama.cpp counts the output matrix as one layer more, and moves it first.
    layers = plan.gpu_layers + 1 if plan and plan.gpu_layers else 0
    dtype = {"auto": "f16"}.get(sizing.request.kv_cache_dtype.lower(), sizing.request.kv_cache_dtype.lower())
    gpus = sizing.request.gpus
    # Left out, llama.cpp splits by what is free at the moment.
    split = ("--split-mode", "layer", "--tensor-split", ",".join("1" * gpus)) if gpus > 1 else ("--split-mode", "none")
    return (
        *("llama-server", "--model", endpoint.model, "--alias", endpoint.name),
        *("--host", endpoint.host, "--port", str(endpoint.port)),
        *("--ctx-size", str(sizing.max_model_len * sizing.max_num_seqs), "--parallel", str(sizing.max_num_seqs)),
        *("--no-kv-unified", "--ubatch-size", str(sizing.max_num_batched_tokens)),
        *("--cache-type-k", dtype, "--cache-type-v", dtype),
        *("--n-gpu-layers", str(layers), *split),
        *("--flash-attn", "on", "--fit", "off", "--cache-ram", "0"),
    )


def _ollama(sizing: Sizing, endpoint: Endpoint) -> tuple[str, ...]:
    """Ollama is set up by its environment: it is stated before the program, as env(1) takes it."""
    dtype = {"auto": "f16"}.get(sizing.request.kv_cache_dtype.lower(), sizing.request.kv_cache_dtype.lower())
    return (
        "env",
        f"OLLAMA_HOST={endpoint.host}:{endpoint.port}",
        f"OLLAMA_CONTEXT_LENGTH={sizing.max_model_len}",
        f"OLLAMA_NUM_PARALLEL={sizing.max_num_seqs}",
        f"OLLAMA_KV_CACHE_TYPE={dtype}",
        "OLLAMA_FLASH_ATTENTION=1",
        "OLLAMA_KEEP_ALIVE=-1",
        "OLLAMA_MAX_LOADED_MODELS=1",
        "ollama",
        "serve",
    )


def _lmstudio(sizing: Sizing, endpoint: Endpoint) -> tuple[str, ...]:
    plan = sizing.offload
    share = plan.share if plan else 1.0
    return (
        *("lms", "load", endpoint.model, "--identifier", endpoint.name),
        # Requests share one context.
        *("--context-length", str(sizing.max_model_len * sizing.max_num_seqs), "--parallel", str(sizing.max_num_seqs)),
        *("--gpu", "max" if share >= 1 else f"{share:.2f}", "--yes"),
    )


_COMMANDS: Mapping[str, Callable[[Sizing, Endpoint], tuple[str, ...]]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "tensorrt-llm": _tensorrt,
    "llama.cpp": _llama_server,
    "ollama": _ollama,
    "lmstudio": _lmstudio,
}
