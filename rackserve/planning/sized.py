"""The result of sizing one instance: every number of it, the reasons, what is short, and the JSON of all that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rackserve.planning.budget import GIB, Budget
from rackserve.planning.parallel import Parallel
from rackserve.planning.request import Request

# Prompts below this length that share nothing gain nothing from a prefix cache.
SHORT_CONTEXT = 10_000


@dataclass(frozen=True, slots=True)
class Alternative:
    """One change that makes it fit: settings by their names on the command line, and a sentence."""

    change: tuple[tuple[str, str | int | float], ...]
    text: str

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"change": dict(self.change), "text": self.text}


@dataclass(frozen=True, slots=True)
class Offload:
    """llama.cpp's split between GPUs and host: layers on the GPUs of all there are, and bytes that stay in RAM."""

    gpu_layers: int
    layers: int
    host_bytes: int

    @property
    def share(self) -> float:
        """Part of the layers that the GPUs hold."""
        return self.gpu_layers / self.layers


@dataclass(frozen=True, slots=True)
class Sizing:
    """One instance on its group of GPUs. Bytes are per GPU of the tightest pipeline stage, tokens of the whole engine.

    demand: requests at the peak and tokens provisioned for each. needed_bytes: KV cache for that, and for one
    request of full length at least. short_reason: what is missing, where it is not what a GPU has.
    whole_prompts: why every prompt is computed in one step, empty where long ones are computed in chunks.
    """

    fits: bool
    missing_bytes: int
    request: Request
    quantization: str
    weight_format: str
    parallel: Parallel
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    utilization: float
    weights_bytes: int
    stage: Budget
    kv_bytes_per_token: float
    kv_cache_bytes: int
    kv_cache_tokens: int
    max_concurrency: float
    needed_bytes: int
    demand: tuple[int, int]
    length_reason: str
    batch_reason: str
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    converted: bool = False
    alternatives: tuple[Alternative, ...] = ()
    offload: Offload | None = None
    short_reason: str = ""
    whole_prompts: str = ""

    def with_alternatives(self, alternatives: tuple[Alternative, ...]) -> Sizing:
        """The same, with what would fit instead."""
        return replace(self, alternatives=alternatives)

    @property
    def prefix_caching(self) -> bool:
        """On where prompts begin alike, and where nobody said; off for short contexts that share nothing."""
        return not (self.request.shared_prompts is False and self.max_model_len < SHORT_CONTEXT)

    @property
    def short(self) -> str:
        """What is missing, in words; empty if it fits."""
        if self.fits:
            return ""
        if self.short_reason:
            return self.short_reason
        requests, tokens = self.demand
        # Less than the engine has: planning keeps a reserve.
        kv = (self.needed_bytes - self.missing_bytes) / GIB
        share = self.request.ceiling if self.request.utilization is None else self.request.utilization
        limit = f"of {100 * share:.4g}% of {self.stage.total / GIB:.1f} GiB"
        have = (
            f"{kv:.2f} GiB are left {limit}"
            if kv > 0
            else f"weights and working memory are {-kv:.2f} GiB over {limit[3:]}"
        )
        where = "" if self.request.gpu.vendor in {"none", "apple"} else " on each GPU"
        what = f"{requests} x {tokens} tokens" if requests > 1 or tokens < self.max_model_len else f"{tokens} tokens"
        return (
            f"{what} need {self.needed_bytes / GIB:.2f} GiB of KV cache{where}, {have}: "
            f"{self.missing_bytes / GIB:.2f} GiB short{self._whole()}"
        )

    @property
    def used_bytes(self) -> int:
        """Bytes of each GPU in use once the engine has started."""
        return self.stage.peak + self.kv_cache_bytes

    def all_reasons(self) -> tuple[str, ...]:
        """Every decision with its reason and numbers."""
        cache = "on" if self.prefix_caching else f"off: under {SHORT_CONTEXT} tokens and nothing shared"
        return (
            *self.reasons,
            f"max_model_len {self.max_model_len} tokens of prompt plus completion: {self.length_reason}",
            self._steps(),
            self._memory_flag(),
            self._memory(),
            self._kv_cache(),
            *(() if self.offload is not None else (f"prefix caching {cache}",)),
        )

    def _memory(self) -> str:
        weights, kv_cache = self.weights_bytes / GIB, self.kv_cache_bytes / GIB
        parts = f"weights {weights:.2f}, {self._working()}, KV cache {kv_cache:.2f} GiB"
        of = "of the host," if self.request.gpu.vendor in {"none", "apple"} else "per GPU of"
        return f"memory {of} {self.stage.total / GIB:.2f} GiB: {parts}"

    def _kv_cache(self) -> str:
        requests, tokens = self.demand
        provisioned = f"{requests} x {tokens} tokens are provisioned for"
        fitting = f"{self.max_concurrency:.1f} requests of {self.max_model_len} tokens fit at once"
        return f"KV cache {self.kv_cache_tokens} tokens: {provisioned}, {fitting}"

    def _steps(self) -> str:
        if self.offload is not None:
            return f"{self.max_num_seqs} slots of {self.max_model_len} tokens each: {self.batch_reason}"
        steps = f"max_num_seqs {self.max_num_seqs}, max_num_batched_tokens {self.max_num_batched_tokens}"
        return f"{steps}: {self.batch_reason}{self._whole()}"

    def _whole(self) -> str:
        return f"; a step holds a whole prompt: {self.whole_prompts}" if self.whole_prompts else ""

    def _working(self) -> str:
        stage = self.stage
        if self.offload is not None:
            return f"compute buffer {stage.activation / GIB:.2f}, process {stage.overhead / GIB:.2f}"
        return (
            f"activations {stage.activation / GIB:.2f}, CUDA graphs {stage.graphs / GIB:.2f}, "
            f"outside the engine's allocator {stage.overhead / GIB:.2f}"
        )

    def _memory_flag(self) -> str:
        if self.request.gpu.vendor == "none" and self.offload is None:
            return f"memory share {self.utilization:g} of the host's memory, for everything: what the demand needs"
        if self.offload is not None:
            stays = "stays below" if self.fits else "would have to stay below"
            return f"memory share {self.utilization:.2f}: {stays} the ceiling of {self.request.ceiling:.0%}"
        why = "asked for" if self.request.utilization is not None else f"the ceiling of {self.request.ceiling:.0%}"
        meaning = {
            "vllm": "of the GPU's memory, for everything",
            "sglang": "of the memory free before loading, for weights and KV cache",
            "tensorrt-llm": "of the memory free after loading, for the KV cache",
        }.get(self.request.runtime, "of the GPU's memory")
        return f"memory share {self.utilization:g} {meaning}: {why}"

    def as_dict(self) -> dict[str, Any]:
        """The object of `size --json`, without argv."""
        shape = self.request.shape
        known = any(layer.matrices for layer in shape.layers)
        return {
            "fits": self.fits,
            "model": self.request.model,
            "runtime": self.request.runtime,
            "runtime_version": self.request.version,
            "gpu": self.request.gpu.tag,
            "gpus": self.request.gpus,
            "replicas": self.parallel.replicas,
            # A GGUF header alone says nothing of single matrices.
            "parameters": shape.parameters if known else None,
            "active_parameters": shape.active_parameters if known else None,
            "used_gib_per_gpu": _gib(self.used_bytes),
            "weights_gib_per_gpu": _gib(self.weights_bytes),
            "kv_bytes_per_token_per_gpu": round(self.kv_bytes_per_token, 3),
            "kv_cache_gib_per_gpu": _gib(self.kv_cache_bytes),
            "kv_cache_tokens": self.kv_cache_tokens,
            "max_concurrency": round(self.max_concurrency, 2),
            "max_model_len": self.max_model_len,
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "chunked_prefill": not self.whole_prompts,
            "tensor_parallel": self.parallel.tensor,
            "pipeline_parallel": self.parallel.pipeline,
            "gpu_memory_utilization": self.utilization,
            "quantization": self.quantization,
            "kv_cache_dtype": self.request.kv_cache_dtype,
            "activation_gib_per_gpu": _gib(self.stage.activation),
            "overhead_gib_per_gpu": _gib(self.stage.overhead + self.stage.graphs),
            "prefix_caching": self.prefix_caching,
            "gpu_layers": self.offload.gpu_layers if self.offload else None,
            "host_memory_gib": _gib(self.offload.host_bytes) if self.offload else 0.0,
            "short": self.short,
            "missing_gib_per_gpu": _gib(self.missing_bytes),
            "reasons": list(self.all_reasons()),
            "warnings": list(self.warnings),
            "alternatives": [alternative.as_dict() for alternative in self.alternatives],
        }


def _gib(size: float) -> float:
    return round(size / GIB, 4)
