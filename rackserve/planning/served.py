"""A sized instance as it is served: its build, where its model lies, how long it may take to start, its unit."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from rackserve.catalog.loader import Catalog
from rackserve.domain.compiler import Compiler
from rackserve.domain.host import Host
from rackserve.domain.service import Service
from rackserve.planning.engine_facts import compiler_for
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
# Seconds until the first completion beside reading weights and a first compilation: graphs are captured, kernels that
# Triton has are compiled, TensorRT-LLM tunes.
_PREPARATION_S = {"vllm": 600, "sglang": 600, "tensorrt-llm": 1800}
_LONGEST_S = 7200


@dataclass(frozen=True, slots=True)
class StartAllowance:
    """Seconds that a service may take until its first completion, and what they are made of."""

    seconds: int
    reason: str


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
    compiler = compiler_for(catalog, sizing.request.runtime, runtime.version, runtime.backend)
    start = start_allowance(host, sizing, compiler)
    job = Job(
        endpoint=Endpoint(service.name, path, service.listen, port),
        sizing=sizing,
        service=service,
        options=Options(catalog, sizing.request.runtime, runtime.version),
        backend=runtime.backend,
        gpus=gpus,
        host_gpus=host.gpu_count,
        start_s=start.seconds,
        weights_sha256=source.sha256 if isinstance(source, GgufSource) else "",
        weights_bytes=source.size_bytes if isinstance(source, GgufSource) else 0,
        install=runtime.install,
        image=planned_image(host, catalog, sizing.request.runtime, runtime.version, runtime.backend),
        member=member,
        compiler=compiler,
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
        start_timeout=start.seconds,
        start_reason=start.reason,
        launch=_told(launch(job), version_problem(catalog, sizing.request.runtime, runtime.version)),
        member=member,
    )


def _told(planned: Launch, problem: str | None) -> Launch:
    return planned if problem is None else replace(planned, warnings=(*planned.warnings, problem))


def start_allowance(host: Host, sizing: Sizing, compiler: Compiler | None) -> StartAllowance:
    """What the host states, or more where reading, preparing and compiling take it."""
    runtime, parts = sizing.request.runtime, sizing.parallel.tensor * sizing.parallel.pipeline
    reading = math.ceil(sizing.weights_bytes * parts / _BYTES_PER_SECOND * _SLOW)
    preparing, compiling = _PREPARATION_S.get(runtime, 0), compiler.first_start_s if compiler is not None else 0
    whole = reading + preparing + compiling
    needed = min(whole, _LONGEST_S)
    if needed <= host.start_timeout:
        return StartAllowance(host.start_timeout, f"a start may take {host.start_timeout} s: start_timeout")
    made_of = [f"{reading} s to read the weights", f"{preparing} s to prepare them"]
    if compiling:
        made_of.append(f"{compiling} s to compile kernels, the first time")
    most = ", the most" if whole > needed else ""
    return StartAllowance(needed, f"a start may take {needed} s{most}: {', '.join(made_of)}")
