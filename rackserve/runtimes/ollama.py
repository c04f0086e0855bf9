"""Ollama: its archive's server under a unit of ours, with a store of models that holds exactly what is served.

The store is written out here rather than by `ollama create`, which needs a running server and writes the weights anew,
two or three times over: a manifest, two small blobs, and a link to the verified file. The server cannot write to it, so
nobody who reaches the server can pull or delete models either.
Sources: ollama 0.32.15, manifest/ and server/images.go (the store, which may hold links), server/routes.go (what a
start does to it), llm/llama_server.go (what becomes of the parameters), openai/openai.go (requests).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rackserve.planning.sized import Sizing
from rackserve.runtimes.endpoint import Endpoint
from rackserve.runtimes.job import Job
from rackserve.runtimes.launch import CURRENT, Launch, Probe
from rackserve.runtimes.llamacpp import kv_name

PROGRAM = f"{CURRENT}/ollama/bin/ollama"
STORES = "/etc/rackserve/ollama"
# It has no metrics, and answers this before any model is loaded.
PROBE = Probe(health="/api/version", metrics=None)
_MEDIA = "application/vnd.ollama.image"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
# Served one request at a time whatever OLLAMA_NUM_PARALLEL says: it is not safe with more (server/sched.go).
_ONE_AT_A_TIME = (
    *("mllama", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen3next", "lfm2", "lfm2moe"),
    *("nemotron_h", "nemotron_h_moe", "nemotron_h_omni"),
)
# `ollama create` names code of Ollama's own for their chats, which a store without it does not (server/create.go).
_OWN_RENDERER = ("gemma4", "laguna", "nemotron_h", "nemotron_h_moe", "nemotron_h_omni")
# general.architecture of a model's GGUF file, where it is not its model_type without underscores. Ollama goes by it.
# Source: llama.cpp, conversion of each family.
_ARCHITECTURES = {
    **{name: name for name in ("nemotron_h", "nemotron_h_moe", "seed_oss", "ernie4_5", "command-r", "gpt-oss")},
    **dict.fromkeys(("mistral", "mixtral"), "llama"),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "kimi_k2"), "deepseek2"),
    "gpt_oss": "gpt-oss",
    "cohere": "command-r",
}


def planned_words(sizing: Sizing, endpoint: Endpoint) -> tuple[str, ...]:
    """Ollama is set up by its environment: it is stated before the program, as env(1) takes it."""
    variables = (f"{name}={value}" for name, value in planned_environment(sizing, endpoint))
    return (*variables, "ollama", "serve")


def planned_environment(sizing: Sizing, endpoint: Endpoint) -> tuple[tuple[str, str], ...]:
    """The settings that planning decides."""
    return (
        ("OLLAMA_HOST", f"{endpoint.host}:{endpoint.port}"),
        ("OLLAMA_CONTEXT_LENGTH", str(sizing.max_model_len)),
        ("OLLAMA_NUM_PARALLEL", str(sizing.max_num_seqs)),
        ("OLLAMA_KV_CACHE_TYPE", kv_name(sizing.request.kv_cache_dtype)),
        ("OLLAMA_FLASH_ATTENTION", "1"),
        ("OLLAMA_KEEP_ALIVE", "-1"),
        ("OLLAMA_MAX_LOADED_MODELS", "1"),
    )


def launch(job: Job) -> Launch:
    """The server with one model, which stays loaded, and no way out."""
    return Launch(
        title=job.title,
        argv=(PROGRAM, "serve"),
        program=PROGRAM,
        probe=PROBE,
        environment=(*planned_environment(job.sizing, job.endpoint), *_environment(job)),
        vendor=job.sizing.request.gpu.vendor,
        gpus=job.gpus,
        gpu_mib=job.gpu_mib,
        files=store_files(job),
        links=((_blob(job, _weights_digest(job)), job.endpoint.model),),
        warnings=tuple(_warnings(job)),
    )


def store_files(job: Job) -> tuple[tuple[str, str], ...]:
    """The store's own files, as path and text."""
    parameters, config = _text(_parameters(job)), _text(_config(job))
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _layer(_CONFIG, config),
        "layers": [
            {"mediaType": f"{_MEDIA}.model", "digest": f"sha256:{_weights_digest(job)}", "size": job.weights_bytes},
            _layer(f"{_MEDIA}.params", parameters),
        ],
    }
    name = f"{_store(job)}/manifests/registry.ollama.ai/library/{job.endpoint.name}/latest"
    return (
        (name, _text(manifest)),
        *((_blob(job, _digest(text)), text) for text in (config, parameters)),
    )


def _environment(job: Job) -> tuple[tuple[str, str], ...]:
    """What keeps it from the network, from its own ideas about memory, and from backends that are not planned."""
    return (
        ("OLLAMA_MODELS", _store(job)),
        # It would delete from the store what it holds for unused, and end where it cannot.
        ("OLLAMA_NOPRUNE", "1"),
        ("OLLAMA_NO_CLOUD", "1"),
        ("OLLAMA_LOAD_TIMEOUT", f"{job.start_s}s"),
        # Of llama-server underneath: what the plan says it has to hold, or to fail.
        ("LLAMA_ARG_FIT", "off"),
        *((("OLLAMA_SCHED_SPREAD", "1"),) if len(job.gpus) > 1 else ()),
        *_BACKENDS.get(job.backend, ()),
    )


# CUDA's is chosen among several by the driver, so the others are switched off instead.
_BACKENDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "cuda": (("OLLAMA_VULKAN", "0"),),
    "vulkan": (("OLLAMA_LLM_LIBRARY", "vulkan"),),
}


def _parameters(job: Job) -> Mapping[str, Any]:
    """Defaults of a request, by the names of a Modelfile's PARAMETER."""
    sizing, service = job.sizing, job.service
    layers = sizing.offload.gpu_layers if sizing.offload else 0
    stated = {
        "num_ctx": sizing.max_model_len,
        "num_batch": sizing.max_num_batched_tokens,
        # llama-server's --n-gpu-layers, which counts the output matrix as one layer more; with 0 it uses no GPU.
        "num_gpu": layers + 1 if layers else 0,
        "num_thread": service.threads,
        "num_predict": service.max_output_tokens,
        "temperature": service.temperature,
        "top_p": service.top_p,
        "repeat_penalty": service.repetition_penalty,
    }
    return {name: value for name, value in stated.items() if value is not None}


def _config(job: Job) -> Mapping[str, Any]:
    family = _family(job)
    return {
        "model_format": "gguf",
        "model_family": family,
        "model_families": [family],
        "model_type": "",
        "file_type": job.sizing.quantization,
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": []},
    }


def _warnings(job: Job) -> list[str]:
    family, found = _family(job), []
    if family in _ONE_AT_A_TIME and job.sizing.max_num_seqs > 1:
        found.append(f"Ollama serves models of {family} one request at a time, whatever is planned")
    if family in _OWN_RENDERER:
        found.append(f"Ollama renders chats of {family} by code of its own, which is not used here: check its answers")
    if job.service.max_output_tokens is not None:
        found.append("max_output_tokens is a default for Ollama: a request that states more gets more")
    found += [
        f"{key} holds on Ollama's own paths only: below /v1 a request that states none gets 1.0"
        for key in ("temperature", "top_p")
        if getattr(job.service, key) is not None
    ]
    return found


def _family(job: Job) -> str:
    model_type = job.sizing.request.shape.model_type.removesuffix("_text")
    return _ARCHITECTURES.get(model_type) or model_type.replace("_", "")


def _store(job: Job) -> str:
    return f"{STORES}/{job.endpoint.name}"


def _blob(job: Job, digest: str) -> str:
    return f"{_store(job)}/blobs/sha256-{digest}"


def _weights_digest(job: Job) -> str:
    # A file that the catalogue does not list is planned for, and refused before anything is installed.
    return job.weights_sha256 or "0" * 64


def _layer(media: str, text: str) -> Mapping[str, Any]:
    return {"mediaType": media, "digest": f"sha256:{_digest(text)}", "size": len(text.encode())}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True) + "\n"
