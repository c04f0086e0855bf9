"""What planning decides: plain frozen values, each with the reasons an operator can read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rackserve.domain.errors import Problem
from rackserve.domain.gpu import Gpu
from rackserve.domain.host import Host
from rackserve.domain.model import GgufFile, LanguageModel
from rackserve.domain.service import Service
from rackserve.planning.memory import Footprint
from rackserve.planning.sized import Sizing
from rackserve.planning.stack import Stack

LLAMACPP = "llama.cpp"


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One service, decided: what it serves, at which length, for how many, in how much memory, and where.

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
    model_url: str
    model_path: str
    start_timeout: int
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]

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
    def probe_url(self) -> str:
        """Where the host itself reaches the service."""
        address = "127.0.0.1" if self.service.listen == "0.0.0.0" else self.service.listen  # noqa: S104 (compared, not bound)
        return f"http://{address}:{self.port}"

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
class GpuServicePlan:
    """One service on GPUs, decided. `gpus` are their numbers in PCI order."""

    service: Service
    model: LanguageModel
    sizing: Sizing
    gpus: tuple[int, ...]
    port: int

    @property
    def name(self) -> str:
        """The service's name, also the systemd instance."""
        return self.service.name

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of the sizing, and of what the service is exposed to."""
        return (*self.sizing.warnings, *exposure(self.service))

    def as_dict(self) -> dict[str, Any]:
        """The object of `plan --json` for one service, without argv."""
        return {
            "name": self.name,
            **self.sizing.as_dict(),
            "gpus": list(self.gpus),
            "listen": self.service.listen,
            "port": self.port,
            "warnings": list(self.warnings),
        }


def exposure(service: Service) -> tuple[str, ...]:
    """What an operator should know of where a service listens."""
    if service.listen == "127.0.0.1":
        return ()
    warnings = [f"listens on {service.listen} without TLS: the API key crosses the network in clear"]
    if not service.allow_from:
        warnings.append(f"listens on {service.listen}, but allow_from is empty: only the host itself may connect")
    return tuple(warnings)


@dataclass(frozen=True, slots=True)
class HostPlan:
    """Everything decided for one host. With `errors`, only what does fit is listed, and nothing is installed.

    services: those in the host's RAM, which this version installs. gpu_services: those on GPUs. capacity_mib: RAM
    for the former. stack: None where it could not be solved, or no runtime is planned.
    """

    host: Host
    gpu: Gpu
    capacity_mib: int
    services: tuple[ServicePlan, ...]
    errors: tuple[Problem, ...]
    gpu_services: tuple[GpuServicePlan, ...] = ()
    stack: Stack | None = None

    @property
    def not_installable(self) -> tuple[Problem, ...]:
        """Why this version cannot put the plan onto the host, though it fits."""
        return tuple(
            Problem(
                f"is planned for {self.gpu.name}, but this version of rackserve installs services on cpu hosts only",
                host=self.host.name,
                service=service.name,
                hint="`rackserve plan` shows what it would be",
            )
            for service in self.gpu_services
        )

    @property
    def used_mib(self) -> int:
        """MiB that all planned services need together."""
        return sum(plan.footprint.total_mib for plan in self.services)

    @property
    def budget_mib(self) -> int:
        """MiB that services may use: the ceiling's share of the capacity."""
        return int(self.capacity_mib * self.host.memory_ceiling)
