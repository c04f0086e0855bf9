"""llama.cpp in a host's own memory: fixed slots, one file of weights, every service against the same RAM.

Every service is decided against what is left, or refused with numbers and with what would fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rackserve.catalog.loader import Catalog
from rackserve.catalog.shapes import shape_of
from rackserve.domain.errors import Problem
from rackserve.domain.model import GgufFile, LanguageModel
from rackserve.domain.policy import KV_HEADROOM, USABLE_SHARE
from rackserve.domain.service import Service
from rackserve.domain.shape import Shape
from rackserve.planning.memory import Footprint, footprint, kv_bytes_per_token
from rackserve.planning.model_source import file_source
from rackserve.planning.plans import HostPlan, ServicePlan, exposure
from rackserve.planning.ram_engine import RAM_ENGINES
from rackserve.runtimes.endpoint import Endpoint
from rackserve.runtimes.llamacpp import in_memory, raised

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
    shape: Shape

    @property
    def nominal(self) -> int:
        """Tokens that the model was made for."""
        return self.shape.context_length

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
            self.shape,
            self.gguf.size_bytes,
            kv_cache_dtype=self.service.llamacpp_kv,
            context_per_slot=max_model_len,
            slots=self.service.slots,
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


def plan_slots(before: HostPlan, catalog: Catalog, ports: Mapping[str, int]) -> HostPlan:
    """The plan of a host whose services live in its RAM, beside those planned already. `ports`: by service."""
    mine = [service for service in before.host.services if service.runtime not in RAM_ENGINES]
    choices = [_choice(service, catalog.models[service.model]) for service in mine]
    lengths, left = _lengths(choices, before.budget_mib - before.engines_mib)
    planned, errors = [], []
    for choice in choices:
        name = choice.service.name
        if name in lengths:
            planned.append(_service_plan(before, catalog, choice, lengths[name], ports[name]))
        else:
            errors.append(_refusal(before, choice, left))
    return replace(before, services=tuple(planned), errors=(*before.errors, *errors))


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
    gguf = next(gguf for gguf in model.gguf if gguf.quantization == wanted)
    return _Choice(service, model, gguf, shape_of(model))


def _service_plan(empty: HostPlan, catalog: Catalog, choice: _Choice, length: int, port: int) -> ServicePlan:
    host, model, need = empty.host, choice.model, choice.footprint(length)
    source = file_source(model, choice.gguf, host.model_hub or catalog.hub.url, host.models_dir)
    endpoint = Endpoint(choice.service.name, source.path, choice.service.listen, port)
    title = f"{model.name} {choice.gguf.quantization} on llama.cpp"
    return ServicePlan(
        service=choice.service,
        model=model,
        gguf=choice.gguf,
        max_model_len=length,
        slots=choice.service.slots,
        footprint=need,
        kv_bytes_per_token=kv_bytes_per_token(choice.shape, choice.service.llamacpp_kv),
        port=port,
        source=source,
        start_timeout=host.start_timeout,
        launch=in_memory(choice.service, endpoint, max_model_len=length, need=need, title=title),
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
        why = f"{KV_HEADROOM} x avg_tokens {service.avg_tokens}" if service.avg_tokens else "the shortest there is"
    else:
        why = f"the longest that fits; {USABLE_SHARE:.0%} of the nominal {nominal} does not"
    slots = service.slots
    return (
        f"quantization {choice.gguf.quantization}: {quantization}",
        f"max_model_len {length} tokens of prompt plus completion: {why}",
        f"{slots} slots: one for each concurrent request, {length} tokens of KV cache each",
        _memory_reason(need, f"{length} x {slots} tokens, {service.llamacpp_kv}"),
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
    warnings.extend((*raised(choice.service), *exposure(choice.service)))
    if empty.host.gpu_simulated:
        warnings.append(f"gpu_tag {empty.host.gpu_tag} is simulated: served on the CPU")
    return tuple(warnings)


def _refusal(empty: HostPlan, choice: _Choice, left_mib: int) -> Problem:
    """Why a service is refused, by how much, and what would fit instead."""
    where = {"host": empty.host.name, "service": choice.service.name}
    length, slots = choice.shortest, choice.service.slots
    if length > choice.nominal:
        stated = choice.service.max_model_len is not None
        need = f"{length} is asked for," if stated else f"{choice.service.avg_tokens} x {KV_HEADROOM} are needed,"
        message = f"{need} {choice.model.name} was made for {choice.nominal} tokens"
        return Problem(message, key="max_model_len" if stated else "avg_tokens", **where)
    needed, budget = choice.need(length), f"{empty.host.memory_ceiling:.0%} of {empty.capacity_mib} MiB"
    message = (
        f"{choice.model.name} {choice.gguf.quantization} does not fit: {length} tokens x {slots} slots "
        f"need {needed} MiB, {left_mib} MiB are left of {budget}, {needed - left_mib} MiB short"
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
    others = [replace(choice, service=service.model_copy(update={key: value})) for key, value in changes]
    for (key, value), other in zip(changes, others, strict=True):
        if other.service != service and other.need(other.shortest) <= left_mib:
            options.append(f"{key} {value}")
    options.extend(
        f"quantization {gguf.quantization}"
        for gguf in choice.model.gguf
        if gguf != choice.gguf and replace(choice, gguf=gguf).need(choice.shortest) <= left_mib
    )
    return f"would fit: {'; '.join(options)}" if options else "nothing smaller of this model fits here"
