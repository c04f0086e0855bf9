"""What planning decides: plain frozen values, each with the reasons an operator can read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rackserve.domain.errors import Problem
from rackserve.domain.gpu import Gpu
from rackserve.domain.host import Host
from rackserve.domain.model import GgufFile, LanguageModel
from rackserve.domain.service import Service
from rackserve.planning.memory import MIB, Footprint
from rackserve.planning.model_source import GgufSource, SnapshotSource
from rackserve.planning.sized import Sizing
from rackserve.planning.stack import Stack, StackRuntime
from rackserve.runtimes.launch import Launch
from rackserve.runtimes.member import Member

LLAMACPP = "llama.cpp"


class _Served:
    """What follows from a service's name and address, whatever serves it."""

    __slots__ = ()
    service: Service
    port: int

    @property
    def name(self) -> str:
        """The service's name, also the systemd instance."""
        return self.service.name

    @property
    def unit(self) -> str:
        """The systemd unit that runs the service."""
        return f"rackserve@{self.name}.service"

    @property
    def user(self) -> str:
        """The Unix user, one per service, so that services cannot read each other."""
        return f"rackserve-{self.name}"

    @property
    def answers(self) -> bool:
        """Whether clients are served on this host."""
        return True

    @property
    def probe_url(self) -> str:
        """Where the host itself reaches the service."""
        address = "127.0.0.1" if self.service.listen == "0.0.0.0" else self.service.listen  # noqa: S104 (compared, not bound)
        return f"http://{address}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServicePlan(_Served):
    """One service in the host's RAM, decided: what it serves, at which length, for how many, in how much memory.

    `max_model_len` is tokens of prompt plus completion of one request; `slots` requests run at once.
    """

    service: Service
    model: LanguageModel
    gguf: GgufFile
    max_model_len: int
    slots: int
    footprint: Footprint
    kv_bytes_per_token: float
    port: int
    source: GgufSource
    start_timeout: int
    launch: Launch
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def model_path(self) -> str:
        """Where the model is on the host."""
        return self.source.path

    @property
    def runtime_name(self) -> str:
        """What serves it."""
        return LLAMACPP

    @property
    def context_size(self) -> int:
        """Tokens of KV cache over all slots, llama-server's `--ctx-size`."""
        return self.max_model_len * self.slots

    def as_dict(self) -> dict[str, Any]:
        """The object of `plan --json` for one service."""
        return {
            "name": self.name,
            "model": self.model.name,
            "runtime": LLAMACPP,
            "fits": True,
            "quantization": self.gguf.quantization,
            "kv_cache_dtype": self.service.llamacpp_kv,
            "max_model_len": self.max_model_len,
            "max_concurrency": self.slots,
            "kv_cache_tokens": self.context_size,
            "kv_bytes_per_token_per_gpu": self.kv_bytes_per_token,
            "weights_gib_per_gpu": round(self.footprint.weights_mib / 1024, 3),
            "kv_cache_gib_per_gpu": round(self.footprint.kv_cache_mib / 1024, 3),
            "activation_gib_per_gpu": round(self.footprint.compute_mib / 1024, 3),
            "overhead_gib_per_gpu": round(self.footprint.process_mib / 1024, 3),
            "memory_max_mib": self.footprint.limit_mib,
            "argv": list(self.launch.argv),
            "tensor_parallel": 1,
            "pipeline_parallel": 1,
            # No GPU, whose memory could be shared out.
            "gpu_memory_utilization": None,
            "gpus": [],
            "listen": self.service.listen,
            "port": self.port,
            "reasons": list(self.reasons),
            "warnings": list(self.warnings),
            "alternatives": [],
        }


@dataclass(frozen=True, slots=True)
class GpuServicePlan(_Served):
    """One service on GPUs, decided. `gpus` are their numbers in PCI order; none where the engine runs on the CPU.

    runtime: as the stack has it. source: None for a GGUF file that the catalogue does not list. start_timeout: seconds,
    start_reason: what they are made of.
    member: this host's part, where the instance is spread over several.
    """

    service: Service
    model: LanguageModel
    sizing: Sizing
    gpus: tuple[int, ...]
    port: int
    runtime: StackRuntime
    source: GgufSource | SnapshotSource | None
    model_path: str
    start_timeout: int
    start_reason: str
    launch: Launch
    member: Member | None = None

    @property
    def runtime_name(self) -> str:
        """What serves it."""
        return self.sizing.request.runtime

    @property
    def answers(self) -> bool:
        """Whether clients are served on this host; of an instance over several hosts the head answers."""
        return self.member is None or self.member.is_head

    @property
    def reasons(self) -> tuple[str, ...]:
        """Every decision with its reason and numbers."""
        return (*self.sizing.all_reasons(), self.start_reason)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of the sizing, of the runtime's options, and of what the service is exposed to."""
        sizing = self.sizing.warnings if self.answers else ()
        # launchd filters no networks.
        exposed = exposure(self.service, filtered=self.sizing.request.gpu.vendor != "apple")
        return (*sizing, *self._unpinned(), *self.launch.warnings, *exposed)

    def _unpinned(self) -> tuple[str, ...]:
        """Whether hosts that serve one instance together could come to hold different weights."""
        followed = isinstance(self.source, SnapshotSource) and self.source.revision is None
        if self.member is None or not self.member.is_head or not followed:
            return ()
        return ("revision is not stated: its hosts may have fetched different commits, whose parts do not go together",)

    def as_dict(self) -> dict[str, Any]:
        """The object of `plan --json` for one service."""
        return {
            "name": self.name,
            **self.sizing.as_dict(),
            "reasons": list(self.reasons),
            "start_timeout": self.start_timeout,
            "argv": list(self.launch.argv),
            "gpus": list(self.gpus),
            "listen": self.service.listen if self.answers else None,
            "port": self.port if self.answers else None,
            "member": self.member.as_dict() if self.member is not None else None,
            "warnings": list(self.warnings),
        }


AnyServicePlan = ServicePlan | GpuServicePlan


def exposure(service: Service, *, filtered: bool = True) -> tuple[str, ...]:
    """What an operator should know of where a service listens. filtered: whether the host keeps to allow_from."""
    if service.listen == "127.0.0.1":
        return ()
    warnings = [f"listens on {service.listen} without TLS: the API key crosses the network in clear"]
    if filtered and not service.allow_from:
        warnings.append(f"listens on {service.listen}, but allow_from is empty: only the host itself may connect")
    return tuple(warnings)


@dataclass(frozen=True, slots=True)
class HostPlan:
    """Everything decided for one host. With `errors`, only what does fit is listed, and nothing is installed.

    services: llama.cpp's in the host's RAM. gpu_services: those on GPUs, and paged engines in RAM. capacity_mib: RAM
    for services in it. stack: None where it could not be solved, or where llama.cpp in RAM is all that is planned.
    """

    host: Host
    gpu: Gpu
    capacity_mib: int
    services: tuple[ServicePlan, ...]
    errors: tuple[Problem, ...]
    gpu_services: tuple[GpuServicePlan, ...] = ()
    stack: Stack | None = None

    @property
    def all_services(self) -> tuple[AnyServicePlan, ...]:
        """In RAM, then on GPUs."""
        return (*self.services, *self.gpu_services)

    def serves(self, runtime: str) -> bool:
        """Whether a service of this host has the runtime."""
        return any(service.runtime_name == runtime for service in self.all_services)

    @property
    def engines_mib(self) -> int:
        """MiB of RAM that paged engines on the CPU need together."""
        return sum(math.ceil(plan.sizing.used_bytes / MIB) for plan in self.gpu_services if not plan.gpus)

    @property
    def used_mib(self) -> int:
        """MiB of RAM that all planned services need together."""
        return sum(plan.footprint.total_mib for plan in self.services) + self.engines_mib

    @property
    def budget_mib(self) -> int:
        """MiB that services may use: the ceiling's share of the capacity."""
        return int(self.capacity_mib * self.host.memory_ceiling)
