"""Ollama under its own unit, beside services of ours: what it has that they are to have. Pure: a fact has looked."""

from __future__ import annotations

from dataclasses import dataclass

from rackserve.planning.plans import HostPlan

UNIT = "ollama.service"
_STOP = f"`systemctl disable --now {UNIT}`"


@dataclass(frozen=True, slots=True)
class VendorServer:
    """The unit that Ollama's installer makes, where it is active. gpu_mib: what it holds on NVIDIA's cards together."""

    port: int
    gpu_mib: int


def clashes(plan: HostPlan, found: VendorServer | None) -> tuple[list[str], list[str]]:
    """What it holds that a planned service needs, and what it may come to hold: a sentence each."""
    if found is None or not plan.gpu_services:
        return [], []
    problems = [
        f"{service.name} is planned for port {found.port}, where {UNIT} listens: {_STOP}, or another port"
        for service in plan.all_services
        if service.port == found.port
    ]
    if found.gpu_mib:
        problems.append(f"{UNIT} holds {found.gpu_mib} MiB of the GPUs, which the plan counts on: {_STOP}")
    warning = f"{UNIT} is active: a request to it takes memory of the GPUs that the plan counts on; {_STOP}"
    return problems, [] if problems else [warning]
