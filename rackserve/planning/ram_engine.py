"""Paged engines in a host's own memory: vLLM on the CPU. Pure.

On a GPU the KV cache takes what the ceiling leaves; a host's RAM has other uses, so here it takes what demand needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from rackserve.catalog.loader import Catalog
from rackserve.catalog.shapes import shape_of
from rackserve.domain.errors import Problem
from rackserve.domain.policy import RESERVE
from rackserve.domain.service import Service
from rackserve.planning.engine_facts import engine_for
from rackserve.planning.host_stack import asked_runtimes, stack_request
from rackserve.planning.instance import size_instance
from rackserve.planning.parallel import ONE_GPU
from rackserve.planning.plans import GpuServicePlan, HostPlan
from rackserve.planning.request import Request
from rackserve.planning.served import served
from rackserve.planning.sized import Sizing
from rackserve.planning.stack import Stack, solve

RAM_ENGINES = ("vllm",)
# The facts of the engine's CPU build are another entry of the catalogue.
_ENGINE = {"vllm": "vllm-cpu"}
# The share is stated with four digits.
_STEP = 10_000


def without_gpu(runtime: str) -> str:
    """Why a question about one instance has no answer for a host's RAM."""
    if runtime in RAM_ENGINES:
        return f"{runtime} needs a GPU here: in RAM it is planned beside the host's other services, in an inventory"
    return f"{runtime} needs a GPU, llama.cpp serves from RAM"


def plan_ram_engines(empty: HostPlan, catalog: Catalog, ports: Mapping[str, int]) -> HostPlan:
    """The host's plan with the services that ask for a paged engine, and what is left of its memory."""
    host = empty.host
    asked = [service for service in host.services if service.runtime in RAM_ENGINES]
    if not asked:
        return empty
    solved = solve(stack_request(host, (), asked_runtimes(asked, empty.gpu, catalog)), catalog)
    if not isinstance(solved, Stack):
        return replace(empty, errors=solved)
    planned: list[GpuServicePlan] = []
    problems: list[Problem] = []
    for service in asked:
        left = empty.budget_mib - replace(empty, gpu_services=tuple(planned)).engines_mib
        sized = _sized(empty, service, solved, catalog, left)
        if isinstance(sized, Sizing) and sized.fits:
            port, runtime = ports[service.name], solved.runtimes[sized.request.runtime]
            planned.append(served(host, service, sized, gpus=(), port=port, runtime=runtime, catalog=catalog))
        else:
            has_files = bool(catalog.models[service.model].gguf)
            problems.append(_refusal(empty, service, sized, left, has_files=has_files))
    return replace(empty, stack=solved, gpu_services=tuple(planned), errors=tuple(problems))


def _sized(empty: HostPlan, service: Service, stack: Stack, catalog: Catalog, left_mib: int) -> Sizing | str:
    """The instance with a KV cache for its demand; with all that is left, if that is less."""
    model, runtime = catalog.models[service.model], service.runtime or ""
    version = stack.runtimes[runtime].version
    request = Request(
        model=model.name,
        shape=shape_of(model),
        # Its reasons speak of what multiplies, and the tag's name is "no GPU".
        gpu=empty.gpu.model_copy(update={"name": "the CPU"}),
        total_mib=empty.capacity_mib,
        runtime=runtime,
        version=version,
        engine=engine_for(catalog, _ENGINE[runtime], version),
        quantization=service.quantization or "",
        offered=tuple(entry.quantization for entry in model.checkpoints) or ("none",),
        kv_cache_dtype=service.kv_cache_dtype or "auto",
        max_model_len=service.max_model_len,
        concurrency=service.slots,
        avg_tokens=service.avg_tokens,
        ceiling=math.floor(max(0.0, left_mib / empty.capacity_mib) * _STEP) / _STEP,
        shared_prompts=service.shared_prompts,
    )
    largest = size_instance(request)
    if isinstance(largest, str) or not largest.fits:
        return largest
    needed = largest.stage.peak + largest.needed_bytes
    # The sizing keeps its reserve here too.
    share = math.ceil((needed / largest.stage.total + RESERVE) * _STEP) / _STEP
    exact = size_instance(
        replace(request, max_model_len=largest.max_model_len, utilization=min(share, request.ceiling))
    )
    found = exact if isinstance(exact, Sizing) and exact.fits else largest
    # The length was stated only once it had been found. ONE_GPU is said of cards, of which there are none.
    reasons = tuple(reason for reason in found.reasons if reason != ONE_GPU)
    return replace(found, length_reason=largest.length_reason, reasons=reasons)


def _refusal(empty: HostPlan, service: Service, sized: Sizing | str, left_mib: int, *, has_files: bool) -> Problem:
    where = {"host": empty.host.name, "service": service.name}
    if isinstance(sized, str):
        return Problem(sized, **where)
    budget = f"{empty.host.memory_ceiling:.0%} of {empty.capacity_mib} MiB"
    message = f"{sized.request.model} ({sized.quantization}) does not fit into {left_mib} MiB left of {budget}"
    hint = "runtime llama.cpp serves smaller files of it" if has_files else ""
    return Problem(f"{message}: {sized.short}", hint=hint, **where)
