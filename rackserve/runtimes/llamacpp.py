"""llama.cpp's llama-server, on GPUs, split between them and the host's memory, or on the CPU alone.

Options are those that llama.cpp 0.5 to 0.7 share (checked against both programs' own --help).
"""

from __future__ import annotations

from rackserve.domain.service import Service
from rackserve.planning.memory import UBATCH_TOKENS, Footprint
from rackserve.planning.sized import Sizing
from rackserve.runtimes.endpoint import Endpoint
from rackserve.runtimes.job import Job
from rackserve.runtimes.launch import API_KEY_FILE, CURRENT, Launch, Probe

PROGRAM = f"{CURRENT}/llama.cpp/bin/llama-server"
PROBE = Probe(
    metrics_key=True,
    in_flight=("llamacpp:requests_processing", "llamacpp:requests_deferred"),
    # The counters of tokens grow when a request ends; this one with every step (0.5: server_metrics::on_decoded).
    progress=("llamacpp:n_decode_total", "llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total"),
)
# The same for every service: a key for all routes; no second entry (web UI), no view of other users' prompts (slots).
_CLOSED = ("--api-key-file", API_KEY_FILE, "--metrics", "--no-slots", "--no-ui", "--offline")


def planned_words(sizing: Sizing, endpoint: Endpoint) -> tuple[str, ...]:
    """The options that planning decides for GPUs."""
    plan = sizing.offload
    # llama.cpp counts the output matrix as one layer more, and moves it first.
    layers = plan.gpu_layers + 1 if plan and plan.gpu_layers else 0
    dtype = kv_name(sizing.request.kv_cache_dtype)
    gpus = sizing.request.gpus
    # Left out, llama.cpp splits by what is free at the moment.
    split = ("--split-mode", "layer", "--tensor-split", ",".join("1" * gpus)) if gpus > 1 else ("--split-mode", "none")
    return (
        *("--model", endpoint.model, "--alias", endpoint.name),
        *("--host", endpoint.host, "--port", str(endpoint.port)),
        *("--ctx-size", str(sizing.max_model_len * sizing.max_num_seqs), "--parallel", str(sizing.max_num_seqs)),
        *("--no-kv-unified", "--ubatch-size", str(sizing.max_num_batched_tokens)),
        *("--cache-type-k", dtype, "--cache-type-v", dtype),
        *("--n-gpu-layers", str(layers), *split),
        *("--flash-attn", "on", "--fit", "off", "--cache-ram", "0"),
    )


def kv_name(dtype: str) -> str:
    """llama.cpp's name for the type of the KV cache."""
    return {"auto": "f16"}.get(dtype.lower(), dtype.lower())


def launch(job: Job) -> Launch:
    """The server on GPUs, with what does not fit there in the host's memory."""
    return Launch(
        title=f"{job.sizing.request.model} {job.sizing.quantization} on llama.cpp",
        argv=(PROGRAM, *planned_words(job.sizing, job.endpoint), *_CLOSED, *_own_choices(job.service)),
        program=PROGRAM,
        probe=PROBE,
        key="file",
        warnings=raised(job.service),
        vendor=job.sizing.request.gpu.vendor,
        gpus=job.gpus,
        gpu_mib=job.gpu_mib,
    )


def in_memory(service: Service, endpoint: Endpoint, *, max_model_len: int, need: Footprint, title: str) -> Launch:
    """The server on the CPU; every limit is stated, none is left to a default that moves."""
    slots, dtype = service.slots, service.llamacpp_kv
    return Launch(
        title=title,
        argv=(
            *(PROGRAM, "--model", endpoint.model, "--alias", endpoint.name),
            *("--host", endpoint.host, "--port", str(endpoint.port)),
            *("--ctx-size", str(max_model_len * slots), "--parallel", str(slots), "--no-kv-unified"),
            *("--ubatch-size", str(UBATCH_TOKENS)),
            *("--cache-type-k", dtype, "--cache-type-v", dtype),
            # Off: the server would shrink context behind the plan's back.
            *("--fit", "off"),
            # 8 GiB of RAM by default, which no memory limit of ours would know of.
            *("--cache-ram", "0"),
            *_CLOSED,
            *_own_choices(service),
        ),
        program=PROGRAM,
        probe=PROBE,
        key="file",
        memory_max_mib=need.limit_mib,
        memory_reason=(
            f"{need.total_mib} MiB needed: weights {need.weights_mib}, KV cache {need.kv_cache_mib}, "
            f"compute {need.compute_mib}, process {need.process_mib}."
        ),
    )


def raised(service: Service) -> tuple[str, ...]:
    """What a request may do to the limit: 0.7.0 gave one 1,900 tokens over `--predict 1500` (measured)."""
    if service.max_output_tokens is None:
        return ()
    return ("max_output_tokens is a default for llama.cpp: a request that states more gets more",)


def _own_choices(service: Service) -> tuple[str, ...]:
    """What the operator may state beside the limits."""
    stated = (
        ("--predict", service.max_output_tokens),
        ("--temp", service.temperature),
        ("--top-p", service.top_p),
        ("--repeat-penalty", service.repetition_penalty),
        ("--threads", service.threads),
    )
    return tuple(word for option, value in stated if value is not None for word in (option, str(value)))
