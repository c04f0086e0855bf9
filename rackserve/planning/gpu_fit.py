"""Services on the GPUs of one host: who gets which card, how much of it, and whether that is enough. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from rackserve.catalog.loader import Catalog
from rackserve.catalog.shapes import shape_of
from rackserve.domain.errors import Problem
from rackserve.domain.gpu import Gpu
from rackserve.domain.host import Host
from rackserve.domain.model import LanguageModel
from rackserve.domain.service import Service
from rackserve.planning.alternatives import alternatives
from rackserve.planning.engine_facts import engine_for
from rackserve.planning.instance import size_instance
from rackserve.planning.plans import GpuServicePlan
from rackserve.planning.request import Request
from rackserve.planning.runtime_choice import chosen_runtime
from rackserve.planning.sized import Sizing
from rackserve.planning.stack import Stack


def plan_gpus(
    host: Host, gpu: Gpu, stack: Stack, catalog: Catalog, ports: Mapping[str, int]
) -> tuple[tuple[GpuServicePlan, ...], tuple[Problem, ...]]:
    """The services that fit, and what is wrong with the others."""
    assigned, problems = assign(host)
    shares = ceilings(host, assigned, problems)
    planned = []
    for service in host.services:
        if service.name not in assigned or service.name not in shares:
            continue
        model = catalog.models[service.model]
        numbers = assigned[service.name]
        request = request_for(
            host, gpu, service, stack=stack, catalog=catalog, gpus=len(numbers), ceiling=shares[service.name]
        )
        sized = size_instance(request)
        if isinstance(sized, Sizing) and sized.fits:
            planned.append(GpuServicePlan(service, model, sized, numbers, ports[service.name]))
        else:
            problems.append(_refusal(host, service, request, sized, catalog))
    return tuple(planned), tuple(problems)


def assign(host: Host) -> tuple[dict[str, tuple[int, ...]], list[Problem]]:
    """GPU numbers by service: the named ones, and the next free ones in the inventory's order for the rest."""
    assigned: dict[str, tuple[int, ...]] = {}
    problems: list[Problem] = []
    for service in host.services:
        if isinstance(service.gpus, int):
            continue
        numbers = tuple(sorted(set(service.gpus)))
        missing = [number for number in numbers if number >= host.gpu_count]
        if missing:
            message = f"{', '.join(map(str, missing))} is not there: gpu_count is {host.gpu_count}, numbers start at 0"
            problems.append(Problem(message, host=host.name, service=service.name, key="gpus"))
        else:
            assigned[service.name] = numbers
    taken = {number for numbers in assigned.values() for number in numbers}
    free = [number for number in range(host.gpu_count) if number not in taken]
    for service in host.services:
        if not isinstance(service.gpus, int):
            continue
        if len(free) < service.gpus:
            message = f"{service.gpus} GPUs are needed, {len(free)} of {host.gpu_count} are left"
            hint = "name GPU numbers in a list to share them, as in gpus = [0]"
            problems.append(Problem(message, host=host.name, service=service.name, key="gpus", hint=hint))
            continue
        assigned[service.name] = tuple(free[: service.gpus])
        free = free[service.gpus :]
    return assigned, problems


def ceilings(host: Host, assigned: Mapping[str, tuple[int, ...]], problems: list[Problem]) -> dict[str, float]:
    """The share of its GPUs that each service may use: its own, or an equal part of what nobody asked for."""
    services = {service.name: service for service in host.services}
    shares: dict[str, float] = {}
    crowded: set[int] = set()
    for name, numbers in assigned.items():
        parts = []
        for number in numbers:
            sharing = [services[other] for other, theirs in assigned.items() if number in theirs]
            stated = sum(other.gpu_share or 0.0 for other in sharing)
            open_ones = sum(1 for other in sharing if other.gpu_share is None)
            left = host.memory_ceiling - stated
            if left < 0 or (open_ones and left <= 0):
                crowded.add(number)
            parts.append(services[name].gpu_share or max(0.0, left) / max(1, open_ones))
        shares[name] = min(parts)
    for number in sorted(crowded):
        message = f"the services on GPU {number} ask for more than memory_ceiling {host.memory_ceiling:.0%} together"
        problems.append(Problem(message, host=host.name, key="gpu_share"))
    return {name: share for name, share in shares.items() if crowded.isdisjoint(assigned[name])}


def request_for(
    host: Host, gpu: Gpu, service: Service, *, stack: Stack, catalog: Catalog, gpus: int, ceiling: float
) -> Request:
    """The sizing request of one service."""
    model = catalog.models[service.model]
    runtime = chosen_runtime(service, gpu, model)
    version = stack.runtimes[runtime].version
    return Request(
        model=model.name,
        shape=shape_of(model),
        gpu=gpu,
        total_mib=gpu_mib(gpu, host.memory_mib),
        runtime=runtime,
        version=version,
        engine=engine_for(catalog, runtime, version),
        gpus=gpus,
        quantization=service.quantization or "",
        offered=offered(model, runtime),
        files=tuple((gguf.quantization, gguf.size_bytes) for gguf in model.gguf),
        kv_cache_dtype=service.kv_cache_dtype or "auto",
        max_model_len=service.max_model_len,
        concurrency=service.concurrency,
        avg_tokens=service.avg_tokens,
        tensor_parallel=service.tensor_parallel,
        pipeline_parallel=service.pipeline_parallel,
        ceiling=ceiling,
        host_mib=host.memory_mib,
        shared_prompts=service.shared_prompts,
    )


def gpu_mib(gpu: Gpu, memory_mib: int | None) -> int:
    """MiB of one GPU as the runtime sees them; unified memory is the stated share of the host's."""
    return int((memory_mib or 0) * gpu.unified_share) if gpu.unified_share else gpu.usable_mib


def offered(model: LanguageModel, runtime: str) -> tuple[str, ...]:
    """Formats that the model is published in for this runtime."""
    if runtime in {"llama.cpp", "ollama", "lmstudio"}:
        return tuple(gguf.quantization for gguf in model.gguf)
    return tuple(checkpoint.quantization for checkpoint in model.checkpoints) or ("none",)


def _refusal(host: Host, service: Service, request: Request, sized: Sizing | str, catalog: Catalog) -> Problem:
    where = {"host": host.name, "service": service.name}
    if isinstance(sized, str):
        return Problem(sized, **where)
    cards = f"{request.gpus} x {request.gpu.tag}" if request.gpus > 1 else request.gpu.tag
    message = f"{request.model} ({sized.quantization}) does not fit on {cards}: {sized.short}"
    found = alternatives(request, catalog)
    hint = (
        f"would fit: {'; '.join(entry.text for entry in found)}" if found else "nothing smaller of this model fits here"
    )
    return Problem(message, hint=hint, **where)
