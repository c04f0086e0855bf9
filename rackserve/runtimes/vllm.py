"""vLLM: `vllm serve` from a virtual environment of its own.

What is not said by an option of this version is told to the operator by the plan: see Options.missing.
"""

from __future__ import annotations

from rackserve.planning.kv_types import kv_type
from rackserve.planning.sized import Sizing
from rackserve.runtimes.endpoint import Endpoint
from rackserve.runtimes.job import Job, compact
from rackserve.runtimes.launch import CURRENT, DRAIN_S, Launch, Probe
from rackserve.runtimes.vllm_nodes import on_node

PROGRAM = f"{CURRENT}/vllm/bin/vllm"
LIBRARIES = f"{CURRENT}/vllm/lib"
# One request may ask for 16,384 completions by default (measured with vLLM 0.32: n=500 was accepted).
_COMPLETIONS_OF_ONE_REQUEST = 64
# Names as a live 0.32 exposes them; counters are matched with and without the `_total` that the exposition adds.
PROBE = Probe(
    in_flight=("vllm:num_requests_running", "vllm:num_requests_waiting"),
    progress=("vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
)


def planned_words(
    sizing: Sizing, endpoint: Endpoint, converting: tuple[str, ...] = ("--quantization", "fp8")
) -> tuple[str, ...]:
    """The options that planning decides, the same in every version from 0.8 on.

    converting: how this version is told to make FP8 of a 16-bit checkpoint.
    """
    quantization = converting if sizing.converted else ()
    prefix = "--enable-prefix-caching" if sizing.prefix_caching else "--no-enable-prefix-caching"
    dtype = sizing.request.kv_cache_dtype
    return (
        *("serve", endpoint.model, "--served-model-name", endpoint.name),
        *("--host", endpoint.host, "--port", str(endpoint.port)),
        *("--max-model-len", str(sizing.max_model_len)),
        *("--max-num-seqs", str(sizing.max_num_seqs)),
        *("--max-num-batched-tokens", str(sizing.max_num_batched_tokens)),
        *("--gpu-memory-utilization", f"{sizing.utilization:g}"),
        *("--tensor-parallel-size", str(sizing.parallel.tensor)),
        *("--pipeline-parallel-size", str(sizing.parallel.pipeline)),
        *("--kv-cache-dtype", kv_type("vllm", dtype) or dtype),
        *quantization,
        prefix,
        *(("--no-enable-chunked-prefill",) if sizing.whole_prompts else ()),
    )


def launch(job: Job) -> Launch:
    """The server with the plan's limits, its own drain, and nothing that tells others what it was asked."""
    options = job.options
    whole = Launch(
        title=job.title,
        argv=(PROGRAM, *planned_words(job.sizing, job.endpoint, _converting(job)), *_beside(job)),
        program=LIBRARIES,
        probe=PROBE,
        environment=_environment(job),
        key="variable",
        key_variable="VLLM_API_KEY",
        writes_code=True,
        shutdown_s=DRAIN_S if options.has("shutdown_timeout") else 0,
        vendor=job.sizing.request.gpu.vendor,
        gpus=job.gpus,
        by_number=_by_number(job),
        neighbours=_by_number(job) and not job.all_cards,
        gpu_mib=job.gpu_mib,
        memory_max_mib=job.memory_max_mib,
        memory_reason=job.memory_reason,
        warnings=(*_exposure(job), *_shared_sight(job), *options.missing),
    )
    return whole if job.member is None else on_node(whole, job.member)


def _converting(job: Job) -> tuple[str, ...]:
    return job.options.words("convert_fp8") if job.sizing.converted else ()


def _by_number(job: Job) -> bool:
    """Versions that take CUDA_VISIBLE_DEVICES for numbers end at a UUID, and count the cards of the whole host."""
    return job.sizing.request.gpu.vendor == "nvidia" and not job.options.has("gpu_uuids")


def _beside(job: Job) -> tuple[str, ...]:
    """Options that no number of the plan is in."""
    options, service = job.options, job.service
    sampling: dict[str, float] = job.sampling()
    if service.max_output_tokens is not None:
        # A request never gets more: it is the least of this, its own and the room that is left.
        sampling["max_new_tokens"] = service.max_output_tokens
    return (
        *(options.words("generation_config_override", compact(sampling)) if sampling else ()),
        *_structured_output(job),
        *_memory(job),
        *options.words("shutdown_timeout", str(DRAIN_S)),
        *options.words("request_log_off"),
        *options.words("access_log_off"),
        *options.words("docs_off"),
    )


def _structured_output(job: Job) -> tuple[str, ...]:
    backend = job.service.structured_output
    return () if backend is None else job.options.words("structured_output_backend", backend)


def _memory(job: Job) -> tuple[str, ...]:
    """On the CPU the memory share is one of the host's, so the KV cache is stated in bytes."""
    if job.backend != "cpu":
        return ()
    return job.options.words("kv_cache_memory_bytes", str(job.sizing.kv_cache_bytes))


def _environment(job: Job) -> tuple[tuple[str, str], ...]:
    options = job.options
    variables = (
        options.variable("offline", "1"),
        options.variable("usage_stats_off", "1"),
        options.variable("max_completions", str(_COMPLETIONS_OF_ONE_REQUEST)),
        options.variable("ready_timeout", str(job.start_s)),
        # torch.distributed would listen on all interfaces.
        options.variable("host_ip", "127.0.0.1"),
    )
    return (*(variable for variable in variables if variable is not None), *job.meeting)


def _exposure(job: Job) -> tuple[str, ...]:
    """What vLLM's own key does not guard (measured with 0.32: POST /invocations answers without one)."""
    if job.endpoint.host == "127.0.0.1":
        return ()
    return ("vLLM asks for the key below /v1 only: /invocations, /tokenize and /metrics answer anybody in allow_from",)


def _shared_sight(job: Job) -> tuple[str, ...]:
    """What a version without UUIDs costs."""
    if not _by_number(job) or job.all_cards:
        return ()
    return (
        f"vLLM {job.sizing.request.version} cannot be told its cards by UUID: its unit may open the other cards too",
    )
