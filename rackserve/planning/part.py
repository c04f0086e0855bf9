"""One host's part in an instance that is spread over several: what its plan has to know of the others. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rackserve.catalog.loader import Catalog
from rackserve.domain.errors import Problem
from rackserve.domain.service import Service
from rackserve.planning.request import Request
from rackserve.planning.sized import Sizing
from rackserve.planning.stack import StackRuntime
from rackserve.runtimes.member import Distributed, Member
from rackserve.runtimes.options import Options


@dataclass(frozen=True, slots=True)
class Part:
    """All but rank and interface are the same on every host of the instance, so that all of them come to one sizing.

    hosts, addresses, cards: in rank order, the head first; cards are empty where a host has not enough of them.
    ceiling: the share of its GPUs that the service may use on every host. memory_mib: the least RAM, None if one host
    does not state it. ports: where the processes meet on the head, by the way in which they find each other.
    """

    rank: int
    hosts: tuple[str, ...]
    addresses: tuple[str, ...]
    cards: tuple[tuple[int, ...], ...]
    interface: str | None
    ceiling: float
    memory_mib: int | None
    ports: tuple[tuple[Distributed, int], ...]

    @property
    def total(self) -> int:
        """GPUs of all hosts together."""
        return sum(len(cards) for cards in self.cards)

    def request(self, request: Request, total_mib: int) -> Request:
        """The sizing request of the whole instance. total_mib: of the GPU with the least memory."""
        tensor, pipeline = request.tensor_parallel, request.pipeline_parallel
        if tensor is not None and pipeline is None and self.total % tensor == 0:
            pipeline = self.total // tensor
        return replace(
            request,
            gpus=self.total,
            hosts=len(self.hosts),
            host_gpus=len(self.cards[0]),
            pipeline_parallel=pipeline,
            ceiling=self.ceiling,
            total_mib=total_mib,
            # Layers stay on the GPUs.
            host_mib=None,
            host_ceiling=self.ceiling,
        )

    def member(self, service: Service, sizing: Sizing, runtime: StackRuntime, catalog: Catalog) -> Member | Problem:
        """What the runtime is told, or why this build of it cannot be spread like that; the problem is this host's."""
        way = self._way(service, runtime, native=Options(catalog, "vllm", runtime.version).has("nnodes"))
        split = sizing.parallel
        if split.replicas > 1:
            way = Problem(
                f"tensor parallel {split.tensor} x pipeline parallel {split.pipeline} are not all {self.total} GPUs",
                key="tensor_parallel",
                hint="leave one of them out",
            )
        if isinstance(way, Problem):
            return replace(way, host=self.hosts[self.rank], service=service.name)
        port = dict(self.ports)[way]
        return Member(way, self.rank, self.hosts, self.addresses, self.cards, self.interface, port)

    def _way(self, service: Service, runtime: StackRuntime, *, native: bool) -> Distributed | Problem:
        """How the processes find each other. native: this version can without Ray."""
        if runtime.install != "wheel":
            message = f"vllm {runtime.version} comes as a container here, which other hosts do not get into"
            return Problem(message, key="nodes", hint="a runtime_version that comes as a wheel")
        if service.distributed == "native" and not native:
            message = f"native: vllm {runtime.version} has no way of its own"
            return Problem(message, key="distributed", hint="leave it out for Ray, or a newer runtime_version")
        return service.distributed or ("native" if native else "ray")
