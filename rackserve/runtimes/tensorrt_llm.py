"""TensorRT-LLM: `trtllm-serve` from NVIDIA's image, named by its digest, as a Quadlet unit.

What 1.2 has no option for stands in its configuration file, which wins over the command line and takes the place of
whole groups there (llm_args.py, update_llm_args_with_extra_dict): so each setting is stated in one of the two.
It knows no keys and serves the host's own loopback address.
"""

from __future__ import annotations

import json
from typing import Any

from rackserve.planning.kv_types import kv_type
from rackserve.planning.sized import Sizing
from rackserve.runtimes.containers import SHM_GIB, container_environment
from rackserve.runtimes.endpoint import Endpoint
from rackserve.runtimes.job import Job
from rackserve.runtimes.launch import Container, Launch, Probe

# 1.2 has no option for the name that it serves under: that is the last part of the model's path.
MODELS = "/models"
CONFIG = "/etc/trtllm.yaml"
# Progress is told by CPU time: its counters of tokens grow when a request has ended (metrics/collector.py).
PROBE = Probe(
    metrics="/prometheus/metrics",
    in_flight=("trtllm_num_requests_running", "trtllm_num_requests_waiting"),
)
# Seconds that uvicorn and the engine are given to end what they do; there is no option for it.
_SHUTDOWN_S = 30


def planned_words(sizing: Sizing, endpoint: Endpoint) -> tuple[str, ...]:
    """The options that planning decides."""
    return (
        *_words(sizing, endpoint, endpoint.model),
        *(() if sizing.whole_prompts else ("--enable_chunked_prefill",)),
        *("--free_gpu_memory_fraction", f"{sizing.utilization:g}"),
    )


def launch(job: Job) -> Launch:
    """The server with the plan's limits and metrics, in a container that sees its model and its cards."""
    endpoint, path = job.endpoint, f"{MODELS}/{job.endpoint.name}"
    config = config_path(endpoint.name)
    return Launch(
        title=job.title,
        argv=(
            *("trtllm-serve", *_words(job.sizing, endpoint, path)),
            *_chunks(job),
            *job.options.words("config_file", CONFIG),
        ),
        program="",
        probe=PROBE,
        environment=_environment(job),
        writes_code=True,
        shutdown_s=_SHUTDOWN_S,
        vendor=job.sizing.request.gpu.vendor,
        gpus=job.gpus,
        gpu_mib=job.gpu_mib,
        files=((config, config_text(job)),),
        container=Container(
            image=job.image.name,
            disk_gib=job.image.disk_gib,
            shm_gib=SHM_GIB,
            volumes=((endpoint.model, path), (config, CONFIG)),
            entrypoint=True,
        ),
        warnings=_warnings(job),
    )


def config_path(name: str) -> str:
    """Where the host keeps the configuration file of a service."""
    return f"/etc/rackserve/services/{name}.trtllm.yaml"


def config_text(job: Job) -> str:
    """The configuration file: JSON, which is YAML too."""
    sizing, service = job.sizing, job.service
    dtype = sizing.request.kv_cache_dtype
    settings: dict[str, object] = {
        "kv_cache_fraction": round(sizing.utilization, 6),
        "prefix_caching": sizing.prefix_caching,
        # Without these two there are no metrics at all, and none of running and waiting requests.
        "metrics_on": True,
        "iteration_metrics_on": True,
    }
    if dtype != "auto":
        settings["kv_cache_dtype"] = kv_type("tensorrt-llm", dtype) or dtype
    if service.structured_output is not None:
        settings["structured_output_backend"] = service.structured_output
    config: dict[str, Any] = {}
    for setting, value in settings.items():
        # Dotted: the group, and the key in it.
        *group, key = (job.options.key(setting) or setting).split(".")
        (config.setdefault(group[0], {}) if group else config)[key] = value
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def _words(sizing: Sizing, endpoint: Endpoint, model: str) -> tuple[str, ...]:
    return (
        *(model, "--host", endpoint.host, "--port", str(endpoint.port)),
        *("--max_seq_len", str(sizing.max_model_len)),
        *("--max_batch_size", str(sizing.max_num_seqs)),
        *("--max_num_tokens", str(sizing.max_num_batched_tokens)),
        *("--tp_size", str(sizing.parallel.tensor), "--pp_size", str(sizing.parallel.pipeline)),
        "--fail_fast_on_attention_window_too_large",
    )


def _chunks(job: Job) -> tuple[str, ...]:
    """Off by default, and then a prompt of more than --max_num_tokens is refused (llmapi/llm.py, _check_arguments)."""
    return () if job.sizing.whole_prompts else job.options.words("chunked_prefill_on")


def _environment(job: Job) -> tuple[tuple[str, str], ...]:
    options = job.options
    # Its processes are Open MPI's, which would look for each other at the host's own address.
    mpi = (("OMPI_MCA_btl_tcp_if_include", "lo"), ("OMPI_MCA_oob_tcp_if_include", "lo"))
    told = (options.variable("offline", "1"), options.variable("usage_stats_off", "1"))
    return (
        *(variable for variable in told if variable is not None),
        *container_environment(),
        *job.meeting,
        *(mpi if len(job.gpus) > 1 else ()),
    )


def _warnings(job: Job) -> tuple[str, ...]:
    """What was asked for and is not done: each request states its own sampling and length."""
    options, service = job.options, job.service
    for setting in ("max_output_tokens", "temperature", "top_p", "repetition_penalty"):
        value = getattr(service, setting)
        # Every service has a penalty against repetition; only who has asked for one is told.
        if value is not None and setting in service.model_fields_set:
            options.words(setting, str(value))
    return options.missing
