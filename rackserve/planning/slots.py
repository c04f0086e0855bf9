"""Decide every service of a host against the host's memory, or refuse with numbers and with what would fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rackserve.catalog.loader import Catalog
from rackserve.domain.errors import InputError, Problem
from rackserve.domain.gpu import Gpu
from rackserve.domain.host import Host
from rackserve.domain.model import GgufFile, LanguageModel
from rackserve.domain.policy import KV_HEADROOM, USABLE_SHARE
from rackserve.domain.service import Service
from rackserve.planning.memory import Footprint, footprint, kv_bytes_per_token
from rackserve.planning.plans import HostPlan, ServicePlan

FIRST_PORT = 8001
# llama.cpp rounds a slot's context up to 256 cells; planning in the same step keeps the plan and the server equal.
CONTEXT_STEP = 256


def rounded_up(tokens: float) -> int:
    """Tokens in whole steps of the server."""
    return math.ceil(tokens / CONTEXT_STEP) * CONTEXT_STEP


@dataclass(frozen=True, slots=True)
class _Choice:
    service: Service
    model: LanguageModel
    gguf: GgufFile

    @property
    def nominal(self) -> int:
        """Tokens that the model was made for."""
        return self.model.architecture.context_length

    @property
    def shortest(self) -> int:
        """The least max_model_len to plan with: what was asked for, else what the average request needs."""
        asked = self.service.max_model_len
        wanted = KV_HEADROOM * (self.service.avg_tokens or 1) if asked is None else asked
        return min(rounded_up(wanted), max(self.nominal, math.ceil(wanted)))

    @property
    def longest(self) -> int:
        """The most to plan with: what was asked for, else the usable share of the model's context."""
        if self.service.max_model_len is not None:
            return self.shortest
        return max(self.shortest, int(self.nominal * USABLE_SHARE) // CONTEXT_STEP * CONTEXT_STEP)

    def footprint(self, max_model_len: int) -> Footprint:
        """MiB at this length."""
        return footprint(
            self.model.architecture,
            self.gguf,
            kv_cache_dtype=self.service.kv_cache_dtype,
            context_per_slot=max_model_len,
            slots=self.service.concurrency,
        )

    def need(self, max_model_len: int) -> int:
        """MiB in all at this length; grows with it."""
        return self.footprint(max_model_len).total_mib

    def fitting(self, budget_mib: int, most: int, least: int = CONTEXT_STEP) -> int:
        """The longest max_model_len from `least` to `most` tokens that the budget holds, 0 where none does."""
        if self.need(most) <= budget_mib:
            return most
        low, high = least // CONTEXT_STEP - 1, most // CONTEXT_STEP
        while low < high:
            middle = (low + high + 1) // 2
            if self.need(middle * CONTEXT_STEP) <= budget_mib:
                low = middle
            else:
                high = middle - 1
        return low * CONTEXT_STEP if low * CONTEXT_STEP >= least else 0


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
    host = empty.host
    choices = [_choice(service, catalog.models[service.model]) for service in host.services]
    ports = _ports(host)
    lengths, left = _lengths(choices, empty.budget_mib)
    planned, errors = [], []
    for choice in choices:
        name = choice.service.name
        if name in lengths:
            planned.append(_service_plan(empty, catalog, choice, lengths[name], ports[name]))
        else:
            errors.append(_refusal(empty, choice, left))
    return HostPlan(host, empty.gpu, empty.capacity_mib, tuple(planned), tuple(errors))


def _lengths(choices: list[_Choice], budget_mib: int) -> tuple[dict[str, int], int]:
    """max_model_len by service, for those that fit, and the MiB that the others would have to fit into.

    First each gets the least it can do with, the smallest need first; then what is left goes to the services that asked
    for no length, in equal shares. The order in which services are listed decides nothing.
    """
    left = budget_mib
    accepted: list[_Choice] = []
    for choice in sorted(choices, key=lambda each: (each.need(each.shortest), each.service.name)):
        if choice.shortest <= choice.nominal and choice.need(choice.shortest) <= left:
            left -= choice.need(choice.shortest)
            accepted.append(choice)
    remainder, lengths = left, {}
    # Those that want least first: what they leave of their share goes to the others.
    growing = sorted(accepted, key=lambda each: each.need(each.longest) - each.need(each.shortest))
    for position, choice in enumerate(growing):
        least = choice.need(choice.shortest)
        share = remainder // (len(growing) - position)
        length = choice.fitting(least + share, choice.longest, choice.shortest)
        remainder -= choice.need(length) - least
        lengths[choice.service.name] = length
    return lengths, left


def _choice(service: Service, model: LanguageModel) -> _Choice:
    wanted = service.quantization or model.gguf[0].quantization
    return _Choice(service, model, next(gguf for gguf in model.gguf if gguf.quantization == wanted))


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
        slots=choice.service.concurrency,
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
    service, nominal, need = choice.service, choice.nominal, choice.footprint(length)
    quantization = "asked for" if service.quantization else "the catalogue's first choice for this model"
    if service.max_model_len is not None:
        why = f"asked for as {service.max_model_len}, in steps of {CONTEXT_STEP}"
    elif length == int(nominal * USABLE_SHARE) // CONTEXT_STEP * CONTEXT_STEP:
        why = f"{USABLE_SHARE:.0%} of the model's nominal {nominal}"
    elif length == choice.longest:
        why = f"{KV_HEADROOM} x avg_tokens {service.avg_tokens}"
    else:
        why = f"the longest that fits; {USABLE_SHARE:.0%} of the nominal {nominal} does not"
    slots = service.concurrency
    return (
        f"quantization {choice.gguf.quantization}: {quantization}",
        f"max_model_len {length} tokens of prompt plus completion: {why}",
        f"{slots} slots: one for each concurrent request, {length} tokens of KV cache each",
        _memory_reason(need, f"{length} x {slots} tokens, {service.kv_cache_dtype}"),
        f"budget {empty.budget_mib} MiB: {empty.host.memory_ceiling:.0%} of {empty.capacity_mib} MiB",
    )


def _memory_reason(need: Footprint, kv_cache: str) -> str:
    parts = f"weights {need.weights_mib}, KV cache {need.kv_cache_mib} ({kv_cache})"
    return f"memory {need.total_mib} MiB: {parts}, compute {need.compute_mib}, process {need.process_mib}"


def _warnings(empty: HostPlan, choice: _Choice, length: int) -> tuple[str, ...]:
    warnings = []
    if length < choice.longest:
        # It serves, but perhaps not what anybody wants: seen in a plan, and gone once the operator has said so.
        warnings.append(f"only {length} of {choice.longest} tokens fit: state max_model_len {length} if that will do")
    if length > choice.nominal * USABLE_SHARE:
        share = f"{USABLE_SHARE:.0%} of the nominal {choice.nominal}"
        warnings.append(f"max_model_len {length} is over {share}: quality may drop")
    if choice.service.listen != "127.0.0.1":
        warnings.append(f"listens on {choice.service.listen} without TLS: the API key crosses the network in clear")
        if not choice.service.allow_from:
            warnings.append(
                f"listens on {choice.service.listen}, but allow_from is empty: only the host itself may connect"
            )
    if empty.host.gpu_simulated:
        warnings.append(f"gpu_tag {empty.host.gpu_tag} is simulated: served on the CPU")
    return tuple(warnings)


def _refusal(empty: HostPlan, choice: _Choice, left_mib: int) -> Problem:
    """Why a service is refused, by how much, and what would fit instead."""
    where = {"host": empty.host.name, "service": choice.service.name}
    length, slots = choice.shortest, choice.service.concurrency
    if length > choice.nominal:
        key = "avg_tokens" if choice.service.max_model_len is None else "max_model_len"
        least = f"{length} tokens are needed, " if key == "avg_tokens" else f"{length} is asked for, "
        return Problem(f"{least}{choice.model.name} was made for {choice.nominal}", key=key, **where)
    need, budget = choice.need(length), f"{empty.host.memory_ceiling:.0%} of {empty.capacity_mib} MiB"
    message = (
        f"{choice.model.name} {choice.gguf.quantization} does not fit: {length} tokens x {slots} slots "
        f"need {need} MiB, {left_mib} MiB are left of {budget}, {need - left_mib} MiB short"
    )
    return Problem(message, hint=_alternatives(choice, left_mib), **where)


def _alternatives(choice: _Choice, left_mib: int) -> str:
    """What does fit in this memory, best first: shorter, a smaller KV cache, fewer at once, another file."""
    service = choice.service
    options = []
    least = rounded_up(KV_HEADROOM * (service.avg_tokens or 1))
    shorter = choice.fitting(left_mib, choice.shortest, least) if least <= choice.shortest else 0
    if shorter:
        options.append(f"max_model_len {shorter}")
    changes = [("kv_cache_dtype", "q8_0"), ("kv_cache_dtype", "q4_0"), ("concurrency", 1)]
    others = [_Choice(service.model_copy(update={key: value}), choice.model, choice.gguf) for key, value in changes]
    for (key, value), other in zip(changes, others, strict=True):
        if other.service != service and other.need(other.shortest) <= left_mib:
            options.append(f"{key} {value}")
    options.extend(
        f"quantization {gguf.quantization}"
        for gguf in choice.model.gguf
        if gguf != choice.gguf and _Choice(service, choice.model, gguf).need(choice.shortest) <= left_mib
    )
    return f"would fit: {'; '.join(options)}" if options else "nothing smaller of this model fits here"
