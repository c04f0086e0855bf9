"""Compare what the inventory says of a host with what the host is. Pure: a fact has read the Node."""

from __future__ import annotations

from collections.abc import Iterator

from rackserve.catalog.loader import Catalog
from rackserve.domain.archives import ArchiveRuntime
from rackserve.domain.gpu import Gpu
from rackserve.domain.node import Node
from rackserve.planning.container_host import podman_problems
from rackserve.planning.macos import is_mac
from rackserve.planning.plans import LLAMACPP, HostPlan
from rackserve.runtimes.archives import PROGRAMS, ArchiveRelease, Wanted, archive_release
from rackserve.runtimes.environments import FromRequirements, environment_origin, wheel_backend
from rackserve.runtimes.llamacpp_origins import CPU, Compute, FromSource, Origin, origin

# Firmware and the kernel take part of the installed memory; a stated size is met at this share of it.
MEMORY_TOLERANCE = 0.92
PYTHON_RUNTIMES = ("vllm", "sglang")


def host_problems(plan: HostPlan, catalog: Catalog, node: Node | None) -> list[str]:
    """Everything that keeps the plan from this host, one sentence each; empty when it may go on."""
    if node is None:
        return ["the host did not tell what it is (os-release, memory, architecture)"]
    problems = []
    if is_mac(plan):
        problems.extend(_apple_problems(plan, node))
    else:
        if not node.systemd:
            problems.append("PID 1 is not systemd: rackserve runs services as systemd units")
        if not plan.host.gpu_simulated:
            problems.extend(_tag_problems(plan.gpu, catalog, node))
    stated = plan.host.memory_mib
    if stated is not None and node.memory_mib < stated * MEMORY_TOLERANCE:
        problems.append(f"memory_mib says {stated}, the host has {node.memory_mib} MiB: set it to what is there")
    if plan.serves(LLAMACPP) and not is_mac(plan):
        problems.extend(_runtime_problems(plan, catalog, node))
    problems.extend(_cpu_problems(plan, node))
    problems.extend(podman_problems(plan, catalog, node.system))
    releases = (archive_origin(plan, catalog, node, runtime) for runtime in PROGRAMS)
    problems.extend(release for release in releases if isinstance(release, str))
    environments = (environment_of(plan, catalog, node, runtime) for runtime in PYTHON_RUNTIMES)
    problems.extend(environment for environment in environments if isinstance(environment, str))
    return problems


def gpu_host_problems(plan: HostPlan, catalog: Catalog, node: Node | None, *, solved: bool) -> list[str]:
    """What is wrong for a driver on this host, as far as it cannot change while rackserve works on it.

    solved: there is a driver plan, with which the cards are looked at more closely.
    """
    if node is None:
        return ["the host did not tell what it is (os-release, memory, architecture)"]
    if plan.host.gpu_simulated:
        return []
    if plan.gpu.vendor == "apple":
        return _apple_problems(plan, node)
    if plan.gpu.vendor == "none" or not solved:
        return _tag_problems(plan.gpu, catalog, node)
    return [] if node.systemd else ["PID 1 is not systemd: what checks the GPUs is a systemd unit"]


def _apple_problems(plan: HostPlan, node: Node) -> list[str]:
    if node.chip != plan.gpu.name:
        found = node.chip or "no chip of Apple's"
        return [f"gpu_tag says {plan.gpu.tag} ({plan.gpu.name}), the host has {found}: correct the tag"]
    return []


def llamacpp_origin(plan: HostPlan, catalog: Catalog, node: Node | None) -> Origin | str:
    """Where llama-server comes from on this host, or why from nowhere."""
    if node is None:
        return "the host is unknown"
    return origin(plan.host.llamacpp, catalog, node, _compute(plan))


def archive_origin(
    plan: HostPlan, catalog: Catalog, node: Node, runtime: ArchiveRuntime
) -> ArchiveRelease | str | None:
    """The release of a runtime on this host, or why there is none; None where no service has that runtime."""
    built = next((service.runtime for service in plan.gpu_services if service.runtime_name == runtime), None)
    if built is None or is_mac(plan):
        return None
    return archive_release(plan.host, catalog, node, Wanted(runtime, built.version, built.backend))


def environment_of(plan: HostPlan, catalog: Catalog, node: Node, runtime: str) -> FromRequirements | str | None:
    """The Python environment of a runtime on this host, or why there is none; None where no service wants one."""
    wanted = (service.runtime for service in plan.gpu_services if service.runtime_name == runtime)
    for built in wanted:
        backend = wheel_backend(built.backend)
        if built.install == "wheel" and backend is not None:
            return environment_origin(runtime, built.version, backend, catalog, node)
    return None


def _compute(plan: HostPlan) -> Compute:
    """What llama-server is to compute with, as the stack has it; a pretended GPU's services run on the CPU."""
    runtime = plan.stack.runtimes.get(LLAMACPP) if plan.stack is not None else None
    if runtime is None or plan.host.gpu_simulated:
        return CPU
    return Compute(runtime.backend, runtime.cuda or runtime.rocm, (plan.gpu.target,) if plan.gpu.target else ())


def _tag_problems(gpu: Gpu, catalog: Catalog, node: Node) -> list[str]:
    """Compare the tag with the PCI bus, by id: names there are missing, old or shared by cards of different memory."""
    found = ", ".join(f"{pci_id}{_named(pci_id, catalog)}" for pci_id in node.pci_gpus) or "no GPU"
    if gpu.vendor == "none":
        known = {pci_id for entry in catalog.gpus.values() for pci_id in entry.pci_ids}
        if known.isdisjoint(node.pci_gpus):
            return []
        return [f"gpu_tag says {gpu.tag}, the PCI bus has {found}: correct the tag, the GPU would stay idle"]
    if set(gpu.pci_ids).isdisjoint(node.pci_gpus):
        expected = " or ".join(gpu.pci_ids)
        return [f"gpu_tag says {gpu.tag} ({gpu.name}, {expected}), the PCI bus has {found}: correct the tag"]
    return []


def _named(pci_id: str, catalog: Catalog) -> str:
    tags = [gpu.tag for gpu in catalog.gpus.values() if pci_id in gpu.pci_ids]
    return f" (tag {tags[0]})" if tags else ""


def _cpu_problems(plan: HostPlan, node: Node) -> Iterator[str]:
    """What vLLM's attention on the CPU ends with (0.33: v1/attention/backends/cpu_attn.py)."""
    if "avx512f" in node.cpu_flags:
        return
    for service in plan.gpu_services:
        dtype = service.sizing.request.kv_cache_dtype
        if plan.gpu.vendor == "none" and dtype.startswith("fp8"):
            yield f"{service.name}: kv_cache_dtype {dtype} needs AVX-512, which this CPU does not have: leave it out"


def _runtime_problems(plan: HostPlan, catalog: Catalog, node: Node) -> list[str]:
    chosen = llamacpp_origin(plan, catalog, node)
    if isinstance(chosen, str):
        return [chosen]
    if isinstance(chosen, FromSource) and node.architecture == "x86_64" and "avx2" not in node.cpu_flags:
        return ["llamacpp_install = 'build' makes a program for AVX2, which this CPU does not have"]
    return []
