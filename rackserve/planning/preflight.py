"""Compare what the inventory says of a host with what the host is. Pure: a fact has read the Node."""

from __future__ import annotations

from rackserve.catalog.loader import Catalog
from rackserve.domain.gpu import Gpu
from rackserve.domain.node import Node
from rackserve.planning.plans import HostPlan
from rackserve.runtimes.llamacpp import FromSource, Origin, origin

# Firmware and the kernel take part of the installed memory; a stated size is met at this share of it.
MEMORY_TOLERANCE = 0.92


def host_problems(plan: HostPlan, catalog: Catalog, node: Node | None) -> list[str]:
    """Everything that keeps the plan from this host, one sentence each; empty when it may go on."""
    if node is None:
        return ["the host did not tell what it is (os-release, memory, architecture)"]
    problems = []
    if not node.systemd:
        problems.append("PID 1 is not systemd: rackserve runs services as systemd units")
    if not plan.host.gpu_simulated:
        problems.extend(_tag_problems(plan.gpu, catalog, node))
    stated = plan.host.memory_mib
    if stated is not None and node.memory_mib < stated * MEMORY_TOLERANCE:
        problems.append(f"memory_mib says {stated}, the host has {node.memory_mib} MiB: set it to what is there")
    if plan.services:
        problems.extend(_runtime_problems(plan, catalog, node))
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
    return origin(plan.host.llamacpp, catalog, node)


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


def _runtime_problems(plan: HostPlan, catalog: Catalog, node: Node) -> list[str]:
    chosen = llamacpp_origin(plan, catalog, node)
    if isinstance(chosen, str):
        return [chosen]
    if isinstance(chosen, FromSource) and node.architecture == "x86_64" and "avx2" not in node.cpu_flags:
        return ["llamacpp_install = 'build' makes a program for AVX2, which this CPU does not have"]
    return []
