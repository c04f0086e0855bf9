"""Decide every service of a host against the host's memory, or refuse with numbers and with what would fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rackserve.catalog.loader import Catalog
from rackserve.domain.errors import InputError, Problem
from rackserve.domain.gpu import Gpu
from rackserve.domain.host import Host
from rackserve.domain.model import GgufFile, LanguageModel
from rackserve.domain.service import Service
from rackserve.planning.memory import Footprint, footprint, kv_bytes_per_token
from rackserve.planning.plans import HostPlan, ServicePlan

FIRST_PORT = 8001
# Long prompts degrade before the nominal window ends; the operator may set max_model_len to the full window.
USABLE_SHARE = 0.8
# KV cache for 1.2 times the tokens that the peak of concurrent requests holds on average.
KV_HEADROOM = 1.2
# llama.cpp rounds a slot's context up to 256 cells; planning in the same step keeps the plan and the server equal.
CONTEXT_STEP = 256


@dataclass(frozen=True, slots=True)
class _Choice:
    service: Service
    model: LanguageModel
    gguf: GgufFile

    def slots(self, max_model_len: int) -> int:
        """Concurrent requests to provision, so that slots x max_model_len holds KV_HEADROOM x the average demand."""
        average = self.service.avg_tokens or max_model_len // 2
        demand = math.ceil(KV_HEADROOM * self.service.concurrency * average)
        return max(self.service.concurrency, math.ceil(demand / max_model_len))

    def footprint(self, max_model_len: int) -> Footprint:
        """MiB at this length."""
        return footprint(
            self.model.architecture,
            self.gguf,
            kv_cache_dtype=self.service.kv_cache_dtype,
            context_per_slot=max_model_len,
            slots=self.slots(max_model_len),
        )

    def longest(self, budget_mib: int, wanted: int) -> int:
        """The longest max_model_len up to `wanted` whose footprint is within the budget, 0 where none is."""
        low, high = 0, wanted // CONTEXT_STEP
        while low < high:
            middle = (low + high + 1) // 2
            if self.footprint(middle * CONTEXT_STEP).total_mib <= budget_mib:
                low = middle
            else:
                high = middle - 1
        return low * CONTEXT_STEP


def plan_hosts(hosts: tuple[Host, ...], catalog: Catalog) -> tuple[HostPlan, ...]:
    """Plan each host on its own. Raises InputError for names that the catalogue does not know, all at once."""
    problems = [problem for host in hosts for problem in _unknown_names(host, catalog)]
    if problems:
        raise InputError(problems)
    return tuple(_plan_host(host, catalog) for host in hosts)


def _unknown_names(host: Host, catalog: Catalog) -> list[Problem]:
    problems = []
    if host.gpu_tag not in catalog.gpus:
        known = ", ".join(sorted(catalog.gpus))
        problems.append(
            Problem(f"{host.gpu_tag} is not in the catalogue", host=host.name, key="gpu_tag", hint=f"known: {known}")
        )
    for service in host.services:
        model = catalog.models.get(service.model)
        if model is None:
            hint = f"known: {', '.join(sorted(catalog.models))}"
            message = f"{service.model} is not in the catalogue"
            problems.append(Problem(message, host=host.name, service=service.name, key="model", hint=hint))
            continue
        offered = [gguf.quantization for gguf in model.gguf]
        if service.quantization is not None and service.quantization not in offered:
            message = f"{model.name} has no {service.quantization}"
            hint = f"it has {', '.join(offered)}"
            problems.append(Problem(message, host=host.name, service=service.name, key="quantization", hint=hint))
    return problems


def _plan_host(host: Host, catalog: Catalog) -> HostPlan:
    gpu = catalog.gpus[host.gpu_tag]
    capacity = _capacity_mib(host, gpu)
    empty = HostPlan(host, gpu, capacity, (), ())
    if gpu.vendor != "none" and not host.gpu_simulated and host.services:
        message = f"{gpu.name}: this version of rackserve serves on cpu hosts only"
        problem = Problem(message, host=host.name, key="gpu_tag", hint="or set gpu_simulated = True for a dry run")
        return HostPlan(host, gpu, capacity, (), (problem,))
    return _plan_services(empty, catalog)


def _capacity_mib(host: Host, gpu: Gpu) -> int:
    """Memory the services may be planned into: RAM of a cpu host, else the card's, and never more than the RAM."""
    sizes = [size for size in (gpu.vram_mib or None, host.memory_mib) if size is not None]
    return min(sizes, default=0)


def _plan_services(empty: HostPlan, catalog: Catalog) -> HostPlan:
    """Services with a stated max_model_len come first; the others share what is left."""
    host = empty.host
    choices = [_choice(service, catalog.models[service.model]) for service in host.services]
    ports = _ports(host)
    left = empty.budget_mib
    planned: dict[str, ServicePlan] = {}
    errors: list[Problem] = []
    stated = [choice for choice in choices if choice.service.max_model_len is not None]
    open_ended = [choice for choice in choices if choice.service.max_model_len is None]
    for index, choice in enumerate(stated + open_ended):
        undecided = len(stated) + len(open_ended) - max(index, len(stated))
        share = left if choice in stated else left // undecided
        length = _length(choice, share)
        need = choice.footprint(length) if length else choice.footprint(CONTEXT_STEP)
        too_long = length > choice.model.architecture.context_length
        if not length or need.total_mib > share or too_long:
            errors.append(_refusal(empty, choice, share, length))
            continue
        left -= need.total_mib
        planned[choice.service.name] = _service_plan(empty, catalog, choice, length, ports[choice.service.name])
    in_order = tuple(planned[service.name] for service in host.services if service.name in planned)
    return HostPlan(host, empty.gpu, empty.capacity_mib, in_order, tuple(errors))


def _choice(service: Service, model: LanguageModel) -> _Choice:
    wanted = service.quantization or model.gguf[0].quantization
    return _Choice(service, model, next(gguf for gguf in model.gguf if gguf.quantization == wanted))


def _length(choice: _Choice, budget_mib: int) -> int:
    """max_model_len to plan with: what was asked for, rounded up to the server's step, else the longest that fits."""
    asked = choice.service.max_model_len
    if asked is not None:
        return math.ceil(asked / CONTEXT_STEP) * CONTEXT_STEP
    return choice.longest(budget_mib, int(choice.model.architecture.context_length * USABLE_SHARE))


def _ports(host: Host) -> dict[str, int]:
    """Ports by service name: the stated ones, and the next free ones from FIRST_PORT for the rest."""
    ports = {service.name: service.port for service in host.services if service.port is not None}
    free = (port for port in range(FIRST_PORT, 65536) if port not in set(ports.values()))
    return {**ports, **{service.name: next(free) for service in host.services if service.port is None}}


def _service_plan(empty: HostPlan, catalog: Catalog, choice: _Choice, length: int, port: int) -> ServicePlan:
    host, model = empty.host, choice.model
    hub = host.model_hub or catalog.hub.url
    return ServicePlan(
        service=choice.service,
        model=model,
        gguf=choice.gguf,
        max_model_len=length,
        slots=choice.slots(length),
        footprint=choice.footprint(length),
        kv_bytes_per_token=kv_bytes_per_token(model.architecture, choice.service.kv_cache_dtype),
        port=port,
        model_url=f"{hub.rstrip('/')}/{model.repo}/resolve/{model.revision}/{choice.gguf.file}",
        model_path=f"{host.models_dir}/{model.folder}/{choice.gguf.file}",
        start_timeout=host.start_timeout,
        reasons=_reasons(empty, choice, length),
        warnings=_warnings(empty, choice, length),
    )


def _reasons(empty: HostPlan, choice: _Choice, length: int) -> tuple[str, ...]:
    service, nominal = choice.service, choice.model.architecture.context_length
    slots, need = choice.slots(length), choice.footprint(length)
    quantization = "asked for" if service.quantization else "the catalogue's first choice for this model"
    if service.max_model_len is not None:
        why = f"asked for as {service.max_model_len}, in steps of {CONTEXT_STEP}"
    elif length == int(nominal * USABLE_SHARE) // CONTEXT_STEP * CONTEXT_STEP:
        why = f"{USABLE_SHARE:.0%} of the model's nominal {nominal}"
    else:
        why = f"the longest that fits; {USABLE_SHARE:.0%} of the nominal {nominal} does not"
    return (
        f"quantization {choice.gguf.quantization}: {quantization}",
        f"max_model_len {length} tokens of prompt plus completion: {why}",
        f"{slots} slots: {service.concurrency} concurrent requests, {KV_HEADROOM} x their average tokens in KV cache",
        _memory_reason(need, f"{length} x {slots} tokens, {service.kv_cache_dtype}"),
        f"budget {empty.budget_mib} MiB: {empty.host.memory_ceiling:.0%} of {empty.capacity_mib} MiB",
    )


def _memory_reason(need: Footprint, kv_cache: str) -> str:
    parts = f"weights {need.weights_mib}, KV cache {need.kv_cache_mib} ({kv_cache})"
    return f"memory {need.total_mib} MiB: {parts}, compute {need.compute_mib}, process {need.process_mib}"


def _warnings(empty: HostPlan, choice: _Choice, length: int) -> tuple[str, ...]:
    warnings = []
    nominal = choice.model.architecture.context_length
    if length > nominal * USABLE_SHARE:
        warnings.append(f"max_model_len {length} is over {USABLE_SHARE:.0%} of the nominal {nominal}: quality may drop")
    if choice.service.listen != "127.0.0.1":
        warnings.append(f"listens on {choice.service.listen} without TLS: the API key crosses the network in clear")
        if not choice.service.allow_from:
            warnings.append(
                f"listens on {choice.service.listen}, but allow_from is empty: only the host itself may connect"
            )
    if empty.host.gpu_simulated:
        warnings.append(f"gpu_tag {empty.host.gpu_tag} is simulated: served on the CPU")
    return tuple(warnings)


def _refusal(empty: HostPlan, choice: _Choice, budget_mib: int, length: int) -> Problem:
    """Why a service is refused, by how much, and what would fit instead."""
    nominal = choice.model.architecture.context_length
    where = {"host": empty.host.name, "service": choice.service.name}
    if length > nominal:
        return Problem(
            f"{length} is more than the {nominal} tokens {choice.model.name} was made for", key="max_model_len", **where
        )
    need = choice.footprint(length or CONTEXT_STEP)
    message = (
        f"{choice.model.name} {choice.gguf.quantization} does not fit: {length or CONTEXT_STEP} tokens x "
        f"{choice.slots(length or CONTEXT_STEP)} slots need {need.total_mib} MiB, {budget_mib} MiB are left of "
        f"{empty.host.memory_ceiling:.0%} of {empty.capacity_mib} MiB, {need.total_mib - budget_mib} MiB short"
    )
    return Problem(message, hint=_alternatives(choice, budget_mib), **where)


def _alternatives(choice: _Choice, budget_mib: int) -> str:
    """What does fit in this budget, best first: shorter, a smaller KV cache, fewer at once, a smaller file."""
    wanted = choice.service.max_model_len or CONTEXT_STEP
    options = []
    shorter = choice.longest(budget_mib, wanted)
    if shorter:
        options.append(f"max_model_len {shorter}")
    variants = [("kv_cache_dtype", dtype) for dtype in ("q8_0", "q4_0")] + [("concurrency", 1)]
    for key, value in variants:
        other = _Choice(choice.service.model_copy(update={key: value}), choice.model, choice.gguf)
        if other.service != choice.service and other.longest(budget_mib, wanted) >= wanted:
            options.append(f"{key} {value}")
    for gguf in choice.model.gguf:
        other = _Choice(choice.service, choice.model, gguf)
        if gguf != choice.gguf and other.longest(budget_mib, wanted) >= wanted:
            options.append(f"quantization {gguf.quantization}")
    return f"would fit: {'; '.join(options)}" if options else "nothing smaller of this model fits here"
