"""Which hosts of an inventory could run a model, with how many of their GPUs, and at what length and concurrency. Pure.

A host is asked as if it were empty, and then again with the GPUs, or the RAM, that its planned services leave.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from rackserve.catalog.loader import Catalog
from rackserve.domain.errors import Problem
from rackserve.domain.gpu import Gpu
from rackserve.domain.host import Host
from rackserve.planning.fit import in_memory
from rackserve.planning.gguf_instance import resident
from rackserve.planning.gpu_fit import assign, gpu_mib
from rackserve.planning.host_stack import stack_request
from rackserve.planning.instance import GGUF_RUNTIMES, size_instance
from rackserve.planning.memory import MOST_SLOTS
from rackserve.planning.plans import LLAMACPP, HostPlan
from rackserve.planning.question import Question
from rackserve.planning.ram_engine import without_gpu
from rackserve.planning.request import Request
from rackserve.planning.runtime_choice import chosen_runtime, default_runtime
from rackserve.planning.sized import Sizing
from rackserve.planning.stack import Stack, solve

NO_GPU_FREE = "no GPU is free beside what is planned"
# Tokens; a shorter context is no answer to where a model could run.
SHORTEST_USEFUL = 1024


@dataclass(frozen=True, slots=True)
class Placement:
    """The answer of one host.

    fewest: with the fewest GPUs that do; best: longest context, then most requests at once. Both None: it cannot.
    beside: the best with what the planned services leave. reason: why it cannot, or why not beside them.
    taken: services by GPU number; empty on a host that serves from RAM. used_mib: RAM of its planned services.
    """

    host: Host
    gpu: Gpu
    fewest: Sizing | None = None
    best: Sizing | None = None
    beside: Sizing | None = None
    reason: str = ""
    taken: tuple[tuple[int, tuple[str, ...]], ...] = ()
    used_mib: int = 0

    @property
    def fits(self) -> bool:
        """Whether the empty host could."""
        return self.best is not None

    def as_dict(self) -> dict[str, object]:
        """The object of one host in `where --json`; what is not known is null."""
        return {
            "name": self.host.name,
            "gpu_tag": self.gpu.tag,
            "gpu_count": self.host.gpu_count,
            "fits": self.fits,
            **_numbers(self.best),
            "fewest": _numbers(self.fewest) if self.fewest else None,
            "fits_beside": self.beside is not None,
            "beside": _numbers(self.beside) if self.beside else None,
            "taken": {str(number): list(names) for number, names in self.taken},
            "used_mib": self.used_mib,
            "reason": self.reason,
            "warnings": list(self.best.warnings) if self.best else [],
        }


def _numbers(sizing: Sizing | None) -> dict[str, object]:
    keys = (
        *("gpus", "runtime", "runtime_version", "quantization", "max_model_len", "max_concurrency", "kv_cache_tokens"),
        *("tensor_parallel", "pipeline_parallel", "weights_gib_per_gpu", "gpu_layers", "host_memory_gib"),
    )
    numbers = sizing.as_dict() if sizing else {}
    return {key: numbers.get(key) for key in keys}


def in_order(placements: Iterable[Placement]) -> tuple[Placement, ...]:
    """Those that fit first, the most requests at once first."""
    return tuple(
        sorted(placements, key=lambda each: (-each.best.max_concurrency if each.best else 1.0, each.host.name))
    )


def place(plan: HostPlan, catalog: Catalog, question: Question) -> Placement:
    """What this host could do with the model, empty and beside what is planned on it."""
    ram = in_memory(plan.host, plan.gpu)
    empty = Placement(plan.host, plan.gpu, taken=() if ram else _taken(plan.host), used_mib=plan.used_mib)
    reasons: dict[str, str] = {}
    for runtime in _runtimes(plan, question):
        found = _placed(empty, plan, catalog, replace(question, runtime=runtime))
        if found.fits:
            return found
        reasons[runtime] = found.reason
    told = [f"{runtime}: {reason}" for runtime, reason in reasons.items()] if len(reasons) > 1 else reasons.values()
    return replace(empty, reason="; ".join(told))


def _runtimes(plan: HostPlan, question: Question) -> tuple[str, ...]:
    """The one asked for; else the default, and after it llama.cpp: smaller files, and layers may stay in RAM."""
    if question.runtime is not None:
        return (question.runtime,)
    if in_memory(plan.host, plan.gpu):
        return (LLAMACPP,)
    default = default_runtime(plan.gpu, has_checkpoint=question.has_checkpoint)
    chosen = question.quantization or question.kv_cache_dtype != "auto"
    return (default,) if default == LLAMACPP or chosen else (default, LLAMACPP)


def _placed(empty: Placement, plan: HostPlan, catalog: Catalog, question: Question) -> Placement:
    """The answer for one runtime."""
    ram = in_memory(plan.host, plan.gpu)
    runtime = question.runtime or LLAMACPP
    request = _runtime_problem(question, runtime, ram=ram) or _request(plan, catalog, question, ((runtime, None),))
    if isinstance(request, str):
        return replace(empty, reason=request)
    sized = [_sized(replace(request, gpus=count)) for count in counts(1 if ram else plan.host.gpu_count)]
    fitting = [each for each in sized if isinstance(each, Sizing) and _useful(each)]
    if not fitting:
        return replace(empty, reason=_why_not(sized[-1]))
    fewest, best = fitting[0], best_of(fitting)
    beside = _beside(empty, plan, catalog, question, best)
    if isinstance(beside, str):
        return replace(empty, fewest=fewest, best=best, reason=beside)
    return replace(empty, fewest=fewest, best=best, beside=beside)


def counts(most: int) -> tuple[int, ...]:
    """Numbers of GPUs to try: 1, 2, 4 and so on, and all of them."""
    powers = [2**exponent for exponent in range(most.bit_length()) if 2**exponent < most]
    return (*powers, most)


def best_of(fitting: list[Sizing]) -> Sizing:
    """The longest context, then the most requests at once, then the fewest GPUs."""
    return max(fitting, key=lambda each: (each.max_model_len, each.max_concurrency, -each.request.gpus))


def _runtime_problem(question: Question, runtime: str, *, ram: bool) -> str:
    """Why the runtime cannot be, whatever the memory."""
    if ram and runtime != LLAMACPP:
        return without_gpu(runtime)
    if runtime not in GGUF_RUNTIMES and not question.has_checkpoint:
        return f"{question.model} is a GGUF file, which {runtime} is not planned for"
    return ""


def _request(
    plan: HostPlan,
    catalog: Catalog,
    question: Question,
    runtimes: tuple[tuple[str, str | None], ...],
) -> Request | str:
    """The request on one GPU of the host, in the version that its stack has; or why there is no such stack."""
    host, gpu, runtime = plan.host, plan.gpu, question.runtime or LLAMACPP
    ram = in_memory(host, gpu)
    total = plan.capacity_mib if ram else gpu_mib(gpu, host.memory_mib)
    if not total:
        return f"memory_mib is needed: {gpu.tag} serves from the host's memory"
    solved = solve(stack_request(host, () if ram else (gpu,) * host.gpu_count, runtimes), catalog)
    if not isinstance(solved, Stack):
        return "; ".join(_sentence(problem) for problem in solved)
    asked = question.request(
        catalog.gpus["cpu"] if ram else gpu, total, runtime, solved.runtimes[runtime].version, catalog
    )
    return replace(
        asked,
        ceiling=host.memory_ceiling,
        host_mib=host.memory_mib,
        host_ceiling=host.memory_ceiling,
        host_gpus=host.gpu_count,
    )


def _sentence(problem: Problem) -> str:
    return f"{problem.message} ({problem.hint})" if problem.hint else problem.message


def _sized(request: Request) -> Sizing | str:
    """The sizing; where llama.cpp's slots are ours to choose, with as many as its memory holds at that length."""
    sized = size_instance(request)
    if isinstance(sized, str) or not sized.fits or request.concurrency is not None or not resident(sized):
        return sized
    low, high = sized.max_num_seqs, MOST_SLOTS
    while low < high:
        middle = (low + high + 1) // 2
        more = size_instance(replace(request, max_model_len=sized.max_model_len, concurrency=middle))
        if isinstance(more, Sizing) and more.fits and more.quantization == sized.quantization and resident(more):
            low, sized = middle, replace(more, length_reason=sized.length_reason)
        else:
            high = middle - 1
    return sized


def _useful(sized: Sizing) -> bool:
    """Whether it fits, and with a context that serves somebody where its length was ours to choose."""
    request = sized.request
    stated = request.max_model_len is not None or request.avg_tokens is not None
    return sized.fits and (stated or sized.max_model_len >= min(SHORTEST_USEFUL, request.shape.context_length // 2))


def _why_not(sized: Sizing | str) -> str:
    if isinstance(sized, str):
        return sized
    if sized.fits:
        return f"{sized.quantization}: only {sized.max_model_len} tokens fit beside the weights"
    cards = f"with {sized.request.gpus} GPUs " if sized.request.gpus > 1 else ""
    return f"{cards}{sized.quantization}: {sized.short}"


def _taken(host: Host) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """The GPUs of the host that services are planned on, with their names."""
    assigned: Mapping[str, tuple[int, ...]] = assign(host)[0]
    numbers = sorted({number for gpus in assigned.values() for number in gpus})
    return tuple((number, tuple(name for name, gpus in assigned.items() if number in gpus)) for number in numbers)


def _beside(placement: Placement, plan: HostPlan, catalog: Catalog, question: Question, best: Sizing) -> Sizing | str:
    """The best with what the services of the host leave, or why there is none."""
    host, ram = plan.host, in_memory(plan.host, plan.gpu)
    if not host.services:
        return best
    request = _request(plan, catalog, question, _with_planned(plan, catalog, question))
    if isinstance(request, str):
        return f"not beside what is planned: {request}"
    free = 1 if ram else host.gpu_count - len(placement.taken)
    if not free:
        return NO_GPU_FREE
    if ram:
        request = replace(request, ceiling=max(0.0, host.memory_ceiling - plan.used_mib / plan.capacity_mib))
    sized = [_sized(replace(request, gpus=count)) for count in counts(free)]
    fitting = [each for each in sized if isinstance(each, Sizing) and _useful(each)]
    left = f"{max(0, plan.budget_mib - plan.used_mib)} MiB of RAM" if ram else f"{free} GPUs"
    return best_of(fitting) if fitting else f"not in the {left} that planned services leave: {_why_not(sized[-1])}"


def _with_planned(plan: HostPlan, catalog: Catalog, question: Question) -> tuple[tuple[str, str | None], ...]:
    """Runtimes of the planned services and ours; of one that is there the stated version holds, for ours too."""
    ours = (question.runtime or LLAMACPP, None)
    if in_memory(plan.host, plan.gpu):
        return (ours,)
    services = plan.host.services
    asked = {(chosen_runtime(each, plan.gpu, catalog.models[each.model]), each.runtime_version) for each in services}
    stated = {name for name, version in asked if version is not None}
    wanted = {(name, version) for name, version in (*asked, ours) if version is not None or name not in stated}
    return tuple(sorted(wanted, key=lambda each: (each[0], each[1] or "")))
