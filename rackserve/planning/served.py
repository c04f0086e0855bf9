"""A sized instance as it is served: its build, where its model lies, how long it may take to start, its unit."""

from __future__ import annotations

import math
from dataclasses import replace

from rackserve.catalog.loader import Catalog
from rackserve.domain.host import Host
from rackserve.domain.service import Service
from rackserve.planning.images import planned_image
from rackserve.planning.model_source import GgufSource, SnapshotSource, checkpoint_source, gguf_source
from rackserve.planning.plans import GpuServicePlan
from rackserve.planning.sized import Sizing
from rackserve.planning.stack import StackRuntime
from rackserve.runtimes.commands import launch
from rackserve.runtimes.endpoint import Endpoint, checkpoint_format, gguf_name
from rackserve.runtimes.job import Job
from rackserve.runtimes.launch import Launch
from rackserve.runtimes.member import Member
from rackserve.runtimes.options import Options, version_problem

# A disk of 200 MB/s with a factor of three for a cold one that others read too (ops: measured loads of 70B models).
_BYTES_PER_SECOND = 200e6
_SLOW = 3
# Seconds until the first completion beside reading weights: kernels are compiled, graphs captured, TensorRT-LLM tunes.
_PREPARATION_S = {"vllm": 600, "sglang": 600, "tensorrt-llm": 1800}
_LONGEST_S = 7200


def served(
    host: Host,
    service: Service,
    sizing: Sizing,
    *,
    gpus: tuple[int, ...],
    port: int,
    runtime: StackRuntime,
    catalog: Catalog,
    member: Member | None = None,
) -> GpuServicePlan:
    """The plan of a service that fits."""
    model = catalog.models[service.model]
    hub = host.model_hub or catalog.hub.url
    source: GgufSource | SnapshotSource | None
    if sizing.offload is not None:
        source = gguf_source(model, sizing.quantization, hub, host.models_dir)
        path = source.path if source else f"{host.models_dir}/{model.name}/{gguf_name(model.name, sizing)}"
    else:
        source = checkpoint_source(model, checkpoint_format(sizing), hub, host.models_dir, service.revision)
        path = source.path
    start_s = start_timeout(host, sizing)
    job = Job(
        endpoint=Endpoint(service.name, path, service.listen, port),
        sizing=sizing,
        service=service,
        options=Options(catalog, sizing.request.runtime, runtime.version),
        backend=runtime.backend,
        gpus=gpus,
        host_gpus=host.gpu_count,
        start_s=start_s,
        weights_sha256=source.sha256 if isinstance(source, GgufSource) else "",
        weights_bytes=source.size_bytes if isinstance(source, GgufSource) else 0,
        install=runtime.install,
        image=planned_image(host, catalog, sizing.request.runtime, runtime.version, runtime.backend),
        member=member,
    )
    return GpuServicePlan(
        service=service,
        model=model,
        sizing=sizing,
        gpus=gpus,
        port=port,
        runtime=runtime,
        source=source,
        model_path=path,
        start_timeout=start_s,
        launch=_told(launch(job), version_problem(catalog, sizing.request.runtime, runtime.version)),
        member=member,
    )


def _told(planned: Launch, problem: str | None) -> Launch:
    return planned if problem is None else replace(planned, warnings=(*planned.warnings, problem))


def start_timeout(host: Host, sizing: Sizing) -> int:
    """Seconds that it may take: what the host states, or more where reading and preparing the model take it."""
    parts = sizing.parallel.tensor * sizing.parallel.pipeline
    reading = sizing.weights_bytes * parts / _BYTES_PER_SECOND * _SLOW
    needed = math.ceil(reading) + _PREPARATION_S.get(sizing.request.runtime, 0)
    return max(host.start_timeout, min(needed, _LONGEST_S))
