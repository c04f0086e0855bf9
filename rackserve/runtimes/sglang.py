"""SGLang: `sglang.launch_server` from a virtual environment of its own.

Its API key can be given in argv or a file only, and is then written to its log in clear (0.5.23: `server_args=`), so it
gets none and listens on the host's own loopback address.
"""

from __future__ import annotations

from rackserve.planning.kv_types import kv_type
from rackserve.planning.sized import Sizing
from rackserve.runtimes.endpoint import Endpoint
from rackserve.runtimes.job import Job, compact
from rackserve.runtimes.launch import CURRENT, Launch, Probe

PYTHON = f"{CURRENT}/sglang/bin/python"
LIBRARIES = f"{CURRENT}/sglang/lib"
# Seconds that it goes on with requests once it was told to stop; it looks every 5 s whether any are left.
_SHUTDOWN_S = 30
PROBE = Probe(
    in_flight=("sglang:num_running_reqs", "sglang:num_queue_reqs"),
    # The others grow when a request ends (0.5.23), this one as it goes.
    progress=("sglang:realtime_tokens_total", "sglang:prompt_tokens_total", "sglang:generation_tokens_total"),
)


def planned_words(sizing: Sizing, endpoint: Endpoint) -> tuple[str, ...]:
    """The options that planning decides, the same in every version from 0.5.2 on."""
    quantization = ("--quantization", "fp8") if sizing.converted else ()
    dtype = sizing.request.kv_cache_dtype
    return (
        *("-m", "sglang.launch_server", "--model-path", endpoint.model),
        *("--served-model-name", endpoint.name, "--host", endpoint.host, "--port", str(endpoint.port)),
        *("--context-length", str(sizing.max_model_len)),
        *("--max-running-requests", str(sizing.max_num_seqs)),
        *("--chunked-prefill-size", str(sizing.max_num_batched_tokens)),
        *("--mem-fraction-static", f"{sizing.utilization:g}"),
        *("--tp-size", str(sizing.parallel.tensor), "--pp-size", str(sizing.parallel.pipeline)),
        *("--kv-cache-dtype", kv_type("sglang", dtype) or dtype),
        *quantization,
        *(() if sizing.prefix_caching else ("--disable-radix-cache",)),
    )


def launch(job: Job) -> Launch:
    """The server with the plan's limits and metrics."""
    options = job.options
    return Launch(
        title=job.title,
        argv=(PYTHON, *planned_words(job.sizing, job.endpoint), *_beside(job)),
        program=LIBRARIES,
        probe=PROBE,
        environment=tuple(
            variable
            for variable in (
                options.variable("offline", "1"),
                options.variable("usage_stats_off", "1"),
                options.variable("docs_off", "1"),
                *job.meeting,
            )
            if variable is not None
        ),
        writes_code=True,
        shutdown_s=_SHUTDOWN_S,
        vendor=job.sizing.request.gpu.vendor,
        gpus=job.gpus,
        by_number=_by_number(job),
        gpu_mib=job.gpu_mib,
        warnings=(*_slower(job), *_own_paths_only(job), *options.missing),
    )


def _by_number(job: Job) -> bool:
    """With every card of the host numbers mean the same to everybody, and its own all-reduce reads numbers only."""
    return job.sizing.request.gpu.vendor == "nvidia" and job.all_cards and job.sizing.parallel.tensor > 1


def _slower(job: Job) -> tuple[str, ...]:
    """SGLang 0.5.23 custom_all_reduce_utils.py takes what is in CUDA_VISIBLE_DEVICES for numbers."""
    if job.sizing.request.gpu.vendor != "nvidia" or job.all_cards or job.sizing.parallel.tensor == 1:
        return ()
    return ("SGLang does not use its own all-reduce on part of a host's cards, which are named by UUID: NCCL does it",)


def _own_paths_only(job: Job) -> tuple[str, ...]:
    """SGLang 0.5.23 entrypoints/openai/protocol.py fills in each value before the preferred ones are looked at."""
    return tuple(
        f"{key} holds on SGLang's own paths only: below /v1 a request that states none gets the model's own default"
        for key in job.sampling()
        if key in job.service.model_fields_set
    )


def _beside(job: Job) -> tuple[str, ...]:
    options, sampling = job.options, job.sampling()
    backend, limit = job.service.structured_output, job.service.max_output_tokens
    return (
        *options.words("metrics_on"),
        *(() if backend is None else options.words("structured_output_backend", backend)),
        *(options.words("sampling_defaults", compact(sampling)) if sampling else ()),
        *(() if limit is None else options.words("max_output_tokens", str(limit))),
        *options.words("access_log_off", "error"),
    )
