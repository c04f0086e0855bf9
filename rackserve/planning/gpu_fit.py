"""Services on the GPUs of one host: who gets which card, how much of it, and whether that is enough. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

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
from rackserve.planning.memory import MIB
from rackserve.planning.part import Part
from rackserve.planning.plans import GpuServicePlan
from rackserve.planning.request import Request
from rackserve.planning.runtime_choice import chosen_runtime
from rackserve.planning.served import served
from rackserve.planning.sized import Alternative, Sizing
from rackserve.planning.stack import Stack

# Their memory share is one of what is free when they start, so it depends on which neighbour starts first.
_SHARE_OF_FREE = ("sglang", "tensorrt-llm")
# How sizing begins a sentence about a setting; with underscores it is the setting's key.
_SETTINGS = (
    *("max_model_len", "avg_tokens", "concurrency", "kv_cache_dtype", "quantization"),
    *("tensor parallel", "pipeline parallel"),
)
_OPTIONAL = ("kv_cache_dtype", "quantization", "tensor_parallel", "pipeline_parallel")


def plan_gpus(
    host: Host, gpu: Gpu, stack: Stack, catalog: Catalog, *, ports: Mapping[str, int], parts: Mapping[str, Part]
) -> tuple[tuple[GpuServicePlan, ...], tuple[Problem, ...]]:
    """The services that fit, and what is wrong with the others. parts: by service, of instances over several hosts."""
    assigned, problems = assign(host)
    shares = ceilings(host, assigned, problems)
    unsteady = _unsteady(host, gpu, assigned, catalog)
    problems.extend(unsteady.values())
    planned: list[GpuServicePlan] = []
    for service in host.services:
        if service.name not in assigned or service.name not in shares or service.name in unsteady:
            continue
        if service.name in parts and () in parts[service.name].cards:
            # Another of its hosts has not enough of them, and says so.
            continue
        numbers = assigned[service.name]
        request = request_for(
            host, gpu, service, stack=stack, catalog=catalog, gpus=len(numbers), ceiling=shares[service.name]
        )
        request = replace(request, host_mib=_ram_left(host, gpu, planned))
        part = parts.get(service.name)
        if part is not None:
            request = part.request(request, gpu_mib(gpu, part.memory_mib))
        sized = size_instance(request)
        if isinstance(sized, Sizing) and sized.fits:
            port, runtime = ports[service.name], stack.runtimes[sized.request.runtime]
            member = part.member(service, sized, runtime, catalog) if part is not None else None
            if isinstance(member, Problem):
                problems.append(member)
                continue
            plan = served(
                host, service, sized, gpus=numbers, port=port, runtime=runtime, catalog=catalog, member=member
            )
            planned.append(plan)
        elif part is None or part.rank == 0:
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


def _unsteady(host: Host, gpu: Gpu, assigned: Mapping[str, tuple[int, ...]], catalog: Catalog) -> dict[str, Problem]:
    """Services that share a GPU and whose size nobody can say, because it depends on what starts before them."""
    found = {}
    for service in host.services:
        numbers = set(assigned.get(service.name, ()))
        beside = [name for name, theirs in assigned.items() if name != service.name and numbers & set(theirs)]
        runtime = chosen_runtime(service, gpu, catalog.models[service.model])
        if beside and runtime in _SHARE_OF_FREE:
            message = f"{runtime} takes a share of the memory that is free when it starts, and {beside[0]} is beside it"
            hint = "give it GPUs of its own, or serve it with vllm, whose share is of the whole card"
            found[service.name] = Problem(message, host=host.name, service=service.name, key="gpus", hint=hint)
    return found


def _ram_left(host: Host, gpu: Gpu, planned: Iterable[GpuServicePlan]) -> int | None:
    """RAM of the host in MiB, less what planned services leave their layers in; unified memory is shared out already.

    Less by so much that the ceiling's share of the rest is what is really left.
    """
    if host.memory_mib is None or gpu.unified_share:
        return host.memory_mib
    used = sum(service.sizing.offload.host_bytes for service in planned if service.sizing.offload is not None)
    return max(0, host.memory_mib - math.ceil(used / MIB / host.memory_ceiling))


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
        # A share of a GPU is none of the RAM.
        host_ceiling=host.memory_ceiling,
        host_gpus=host.gpu_count,
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
        return _sentence_refusal(sized, host, service)
    cards = f"{request.gpus} x {request.gpu.tag}" if request.gpus > 1 else request.gpu.tag
    message = f"{request.model} ({sized.quantization}) does not fit on {cards}: {sized.short}"
    if request.host_mib != host.memory_mib and sized.offload is not None:
        message += f"; other services' layers leave {request.host_mib} of {host.memory_mib} MiB of RAM"
    # On a card that is shared the service's part is gpu_share, and a higher ceiling would be everybody's.
    shared = request.ceiling != host.memory_ceiling
    found = [
        _with_all_ram(entry, host, request)
        for entry in alternatives(request, catalog)
        if not (shared and "memory_ceiling" in dict(entry.change))
    ]
    hint = f"would fit: {'; '.join(found)}" if found else "nothing smaller of this model fits here"
    return Problem(message, hint=hint, **where)


def _with_all_ram(entry: Alternative, host: Host, request: Request) -> str:
    """The sentence of an alternative; RAM is that of the host, with what other services leave there."""
    needed = dict(entry.change).get("memory_mib")
    if needed is None or host.memory_mib is None or request.host_mib is None:
        return entry.text
    whole = host.memory_mib - request.host_mib + int(needed)
    return entry.text.replace(f"memory_mib {needed}", f"memory_mib {whole}")


def _sentence_refusal(text: str, host: Host, service: Service) -> Problem:
    """A sentence of the sizing as a problem, with the setting that it is about where that can be told."""
    start = next((name for name in _SETTINGS if text.startswith(name)), "")
    key = start.replace(" ", "_")
    if not key and service.quantization and service.quantization.lower() in text.lower():
        key = "quantization"
    message, _, hint = text.partition("; ") if key else (text, "", "")
    hint = hint or ("leave it out" if key in _OPTIONAL else "")
    return Problem(message.removeprefix(start).lstrip(), host=host.name, service=service.name, key=key, hint=hint)
