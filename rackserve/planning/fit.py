"""Plan every host of an inventory: which services it can carry, with which numbers, or why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from rackserve.catalog.loader import Catalog
from rackserve.domain.errors import InputError, Problem, suggestion
from rackserve.domain.gpu import Gpu
from rackserve.domain.host import Host
from rackserve.domain.service import Service
from rackserve.planning.gpu_fit import plan_gpus
from rackserve.planning.host_stack import asked_runtimes, stack_request
from rackserve.planning.instance import GGUF_RUNTIMES
from rackserve.planning.macos import on_mac
from rackserve.planning.memory import MOST_SLOTS
from rackserve.planning.part import Part
from rackserve.planning.plans import LLAMACPP, HostPlan
from rackserve.planning.ram_engine import RAM_ENGINES, plan_ram_engines
from rackserve.planning.runtime_choice import chosen_runtime
from rackserve.planning.slots import plan_slots
from rackserve.planning.stack import Stack, solve
from rackserve.runtimes.options import choices

FIRST_PORT = 8001
_KV_TYPES = ("f16", "q8_0", "q4_0")
# What only GPUs and their runtimes know; llama.cpp in RAM would do as if nobody had asked.
_GPU_SETTINGS = (
    *("runtime_version", "revision", "structured_output"),
    *("gpu_share", "tensor_parallel", "pipeline_parallel"),
)
_DRIVER_SETTINGS = ("driver_branch", "kernel_module")
_LEAVE_OUT = "leave it out"
_OWN_WAYS: Mapping[str, tuple[str, ...]] = {
    # The version is that of the archive, the package or the build that llamacpp_install says.
    "llama.cpp": ("runtime_version",),
    # `lms load` has no option for it.
    "lmstudio": ("threads",),
}
# No key at all, or one that ends up in the log in clear (SGLang): see each runtime's module.
KEYLESS = ("sglang", "tensorrt-llm", "ollama", "lmstudio")


def plan_hosts(
    hosts: tuple[Host, ...], catalog: Catalog, parts: Mapping[tuple[str, str], Part] | None = None
) -> tuple[HostPlan, ...]:
    """Plan each host on its own. parts: of instances over several hosts, by host and service.

    Raises InputError for names that the catalogue does not know and settings that would do nothing, all at once.
    """
    problems = [problem for host in hosts for problem in _input_problems(host, catalog)]
    if problems:
        raise InputError(problems)
    return tuple(_plan_host(host, catalog, parts or {}) for host in hosts)


def in_memory(host: Host, gpu: Gpu) -> bool:
    """Whether a host's services live in its RAM: no GPU, or one that is only pretended."""
    return gpu.vendor == "none" or host.gpu_simulated


def _input_problems(host: Host, catalog: Catalog) -> list[Problem]:
    gpu = catalog.gpus.get(host.gpu_tag)
    if gpu is None:
        message = f"{host.gpu_tag} is not in the catalogue"
        hint = suggestion(host.gpu_tag, catalog.gpus)
        return [Problem(message, host=host.name, key="gpu_tag", hint=hint), *_models(host, catalog)]
    problems = [*_models(host, catalog), *_host_problems(host, gpu)]
    for service in host.services:
        if service.model in catalog.models:
            problems.extend(_problems_of(host, gpu, service)(host, gpu, service, catalog))
    return problems


def _problems_of(host: Host, gpu: Gpu, service: Service) -> Callable[[Host, Gpu, Service, Catalog], Iterator[Problem]]:
    """What looks for the problems of a service, by what it runs in."""
    if not in_memory(host, gpu):
        return _runtime_problems
    return _engine_problems if gpu.vendor == "none" and service.runtime in RAM_ENGINES else _file_problems


def _engine_problems(host: Host, gpu: Gpu, service: Service, catalog: Catalog) -> Iterator[Problem]:
    """What a paged engine on the CPU cannot do anything with."""
    where = {"host": host.name, "service": service.name}
    for key in ("gpu_share", "tensor_parallel", "pipeline_parallel", "threads"):
        if getattr(service, key) is not None:
            yield Problem(f"has no meaning for {service.runtime} on the CPU", key=key, hint=_LEAVE_OUT, **where)
    if service.gpus != 1:
        yield Problem(f"{gpu.name} has none", key="gpus", hint=_LEAVE_OUT, **where)
    if not catalog.models[service.model].checkpoints:
        yield Problem(
            f"{service.model} has no checkpoint in the catalogue, which {service.runtime} needs", key="model", **where
        )
    yield from _grammar_problems(host, service, service.runtime or "", catalog)


def _host_problems(host: Host, gpu: Gpu) -> Iterator[Problem]:
    """Settings of a host that do not go with its tag."""
    if gpu.vendor == "apple" and host.memory_mib is None and host.services:
        yield Problem("is needed: Apple's GPUs use the host's memory", host=host.name, key="memory_mib")
    pretended = host.gpu_simulated and gpu.vendor != "none"
    if not gpu.vram_mib and host.gpu_count > 1 and not pretended:
        message = f"{host.gpu_count}: {gpu.name} has one memory, that of the host"
        yield Problem(message, host=host.name, key="gpu_count", hint=_LEAVE_OUT)
    if gpu.vendor == "none":
        for key in _DRIVER_SETTINGS:
            if getattr(host, key) is not None:
                yield Problem("has no meaning for a host without a GPU", host=host.name, key=key, hint=_LEAVE_OUT)


def _models(host: Host, catalog: Catalog) -> list[Problem]:
    return [
        Problem(
            f"{service.model} is not in the catalogue",
            host=host.name,
            service=service.name,
            key="model",
            hint=suggestion(service.model, catalog.models),
        )
        for service in host.services
        if service.model not in catalog.models
    ]


def _file_problems(host: Host, gpu: Gpu, service: Service, catalog: Catalog) -> Iterator[Problem]:
    """What a service that lives in RAM asks for and llama.cpp cannot have."""
    where = {"host": host.name, "service": service.name}
    model = catalog.models[service.model]
    if service.runtime not in {None, LLAMACPP}:
        yield Problem(f"{service.runtime} needs a GPU", key="runtime", hint=_in_ram(host, service), **where)
    offered = [gguf.quantization for gguf in model.gguf]
    if not offered:
        yield Problem(f"{model.name} has no GGUF file in the catalogue, which llama.cpp needs", key="model", **where)
    elif service.quantization is not None and service.quantization not in offered:
        message, hint = f"{model.name} has no {service.quantization}", f"it has {', '.join(offered)}"
        yield Problem(message, key="quantization", hint=hint, **where)
    if service.llamacpp_kv not in _KV_TYPES:
        message = f"{service.llamacpp_kv} is not known to llama.cpp"
        yield Problem(message, key="kv_cache_dtype", hint=f"known: auto, {', '.join(_KV_TYPES)}", **where)
    if service.slots > MOST_SLOTS:
        yield Problem(f"{service.slots}: llama-server has at most {MOST_SLOTS} slots", key="concurrency", **where)
    # A pretended GPU keeps its settings, so that a rehearsal has the inventory of the real host.
    if gpu.vendor == "none":
        stated = [key for key in _GPU_SETTINGS if getattr(service, key) is not None]
        # A stated 1 is what every service has anyway.
        for key in (*stated, *(("gpus",) if service.gpus != 1 else ())):
            yield Problem("has no meaning for llama.cpp in RAM", key=key, hint=_LEAVE_OUT, **where)


def _in_ram(host: Host, service: Service) -> str:
    """What serves instead."""
    if service.runtime in RAM_ENGINES and host.gpu_simulated:
        return f"a pretended one is llama.cpp's; {service.runtime} serves from RAM with gpu_tag cpu"
    return f"llama.cpp and {' and '.join(RAM_ENGINES)} serve from RAM"


def _runtime_problems(host: Host, gpu: Gpu, service: Service, catalog: Catalog) -> Iterator[Problem]:
    """What a service on GPUs asks for and its runtime would do nothing with."""
    runtime = chosen_runtime(service, gpu, catalog.models[service.model])
    where = {"host": host.name, "service": service.name}
    if service.nodes and runtime != "vllm":
        yield Problem(f"{runtime} serves from one host", key="nodes", hint="vllm spreads over several", **where)
    for key in _ignored(runtime):
        if getattr(service, key) is not None:
            yield Problem(f"has no meaning for {runtime}", key=key, hint=_LEAVE_OUT, **where)
    yield from _grammar_problems(host, service, runtime, catalog)
    model = catalog.models[service.model]
    if runtime not in GGUF_RUNTIMES and model.gguf and not model.checkpoints:
        message = f"{model.name} has GGUF files only in the catalogue, which {runtime} does not load"
        yield Problem(message, key="runtime", hint="llama.cpp and ollama do", **where)
    if runtime in KEYLESS and service.listen != "127.0.0.1":
        message = f"{service.listen}: {runtime} has no API keys that it keeps to itself, so it serves its own host only"
        yield Problem(message, key="listen", hint=f"{_LEAVE_OUT}; vllm and llama.cpp have keys", **where)


def _grammar_problems(host: Host, service: Service, runtime: str, catalog: Catalog) -> Iterator[Problem]:
    """A backend that no version of the runtime has would end its start."""
    wanted, known = service.structured_output, choices(catalog, runtime, "structured_output_backend")
    if wanted is not None and known and wanted not in known:
        message, hint = f"{wanted} is not known to {runtime}", f"known: {', '.join(known)}"
        yield Problem(message, host=host.name, service=service.name, key="structured_output", hint=hint)


def _ignored(runtime: str) -> tuple[str, ...]:
    """Settings of a service that this runtime has nothing for."""
    # llama.cpp splits layers over GPUs and constrains output by itself, and the catalogue pins its files; the others
    # compute on the GPU alone.
    gguf = ("revision", "tensor_parallel", "pipeline_parallel", "structured_output")
    ignored = gguf if runtime in GGUF_RUNTIMES else ("threads",)
    return (*ignored, *_OWN_WAYS.get(runtime, ()), *(("api_key_file",) if runtime in KEYLESS else ()))


def _plan_host(host: Host, catalog: Catalog, parts: Mapping[tuple[str, str], Part]) -> HostPlan:
    gpu = catalog.gpus[host.gpu_tag]
    host = on_mac(host, gpu)
    ports = _ports(host)
    empty = HostPlan(host, gpu, _capacity_mib(host, gpu), (), ())
    if in_memory(host, gpu):
        return plan_slots(plan_ram_engines(empty, catalog, ports), catalog, ports)
    solved = solve(stack_request(host, (gpu,) * host.gpu_count, asked_runtimes(host.services, gpu, catalog)), catalog)
    if not isinstance(solved, Stack):
        return replace(empty, errors=solved)
    own = {service: part for (name, service), part in parts.items() if name == host.name}
    services, errors = plan_gpus(host, gpu, solved, catalog, ports=ports, parts=own)
    return replace(empty, stack=solved, gpu_services=services, errors=errors)


def _capacity_mib(host: Host, gpu: Gpu) -> int:
    """Memory for services in RAM: that of a cpu host, else what the pretended card has; never more than the RAM."""
    sizes = [size for size in (gpu.vram_mib or None, host.memory_mib) if size is not None]
    return min(sizes, default=0)


def _ports(host: Host) -> dict[str, int]:
    """Ports by service name: the stated ones, and the next free ones from FIRST_PORT for the rest."""
    ports = {service.name: service.port for service in host.services if service.port is not None}
    taken = set(ports.values())
    free = (port for port in range(FIRST_PORT, 65536) if port not in taken)
    return {**ports, **{service.name: next(free) for service in host.services if service.port is None}}
