"""What a runtime module is told of a service that it is to serve."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from rackserve.domain.compiler import Compiler
from rackserve.domain.service import Service
from rackserve.domain.stack import InstallKind
from rackserve.planning.images import PlannedImage
from rackserve.planning.memory import MIB
from rackserve.planning.sized import Sizing
from rackserve.runtimes.endpoint import Endpoint
from rackserve.runtimes.member import Member
from rackserve.runtimes.options import Options

# A runtime that computes on the CPU holds next to nothing on its cards; one that works holds all of its weights there.
_IN_USE = 0.5
_NO_IMAGE = PlannedImage("")


@dataclass(frozen=True, slots=True)
class Job:
    """One instance, sized.

    endpoint: its model is the path on the host. options: what this version of the runtime calls its settings. backend:
    what the installed build computes with. gpus: numbers in PCI order. start_s: seconds it may take until it serves.
    weights_sha256, weights_bytes: of the one file of weights, where there is one.
    member: this host's part, where the instance is spread over several. image: what is run where `install` says so.
    host_gpus: all GPUs of the host. compiler: what this build compiles while it serves, None for nothing.
    """

    endpoint: Endpoint
    sizing: Sizing
    service: Service
    options: Options
    backend: str
    gpus: tuple[int, ...]
    host_gpus: int
    start_s: int
    member: Member | None = None
    weights_sha256: str = ""
    weights_bytes: int = 0
    install: InstallKind = "wheel"
    image: PlannedImage = _NO_IMAGE
    compiler: Compiler | None = None

    @property
    def title(self) -> str:
        """What is served on what, for people."""
        request = self.sizing.request
        return f"{request.model} {self.sizing.quantization} on {request.runtime} {request.version}"

    @property
    def all_cards(self) -> bool:
        """Whether it has every card of the host."""
        return len(self.gpus) == self.host_gpus

    @property
    def meeting(self) -> tuple[tuple[str, str], ...]:
        """How the processes of an instance on several cards of one host find each other.

        NCCL and Gloo take any interface but the loopback one, which is the only one that such a unit may use.
        """
        alone = len(self.gpus) > 1 and self.member is None
        return (("NCCL_SOCKET_IFNAME", "=lo"), ("GLOO_SOCKET_IFNAME", "lo")) if alone else ()

    @property
    def gpu_mib(self) -> int:
        """MiB that it holds at least on each of its cards once it serves."""
        return int(self.sizing.weights_bytes * _IN_USE / MIB) if self.gpus else 0

    @property
    def memory_max_mib(self) -> int | None:
        """Limit of the host's memory in MiB where the engine runs in it: its need and a quarter of its weights.

        The page cache of the files that are read counts as the unit's.
        """
        if self.backend != "cpu":
            return None
        return math.ceil((self.sizing.used_bytes + self.sizing.weights_bytes / 4) / MIB)

    @property
    def memory_reason(self) -> str:
        """What the limit is made of."""
        sizing, stage = self.sizing, self.sizing.stage
        parts = {
            "weights": sizing.weights_bytes,
            "KV cache": sizing.kv_cache_bytes,
            "activations": stage.activation,
            "process": stage.overhead,
        }
        listed = ", ".join(f"{name} {size // MIB}" for name, size in parts.items())
        return f"{sizing.used_bytes // MIB} MiB needed: {listed}."

    def sampling(self) -> dict[str, float]:
        """What a request gets that says nothing of its own, under the hub's names (generation_config.json)."""
        service = self.service
        stated = {
            "temperature": service.temperature,
            "top_p": service.top_p,
            "repetition_penalty": service.repetition_penalty,
        }
        return {name: value for name, value in stated.items() if value is not None}


def compact(value: object) -> str:
    """JSON without a space in it: one word of a command line."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
