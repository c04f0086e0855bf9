"""A host's wishes as a request for a stack: the one way from the inventory's keys to the solver."""

from __future__ import annotations

from collections.abc import Iterable

from rackserve.catalog.loader import Catalog
from rackserve.domain.gpu import Gpu
from rackserve.domain.host import Host
from rackserve.domain.service import Service
from rackserve.planning.runtime_choice import chosen_runtime
from rackserve.planning.stack_rules import StackRequest

Runtimes = tuple[tuple[str, str | None], ...]


def stack_request(host: Host, cards: tuple[Gpu, ...], runtimes: Runtimes, system: str | None = None) -> StackRequest:
    """What the host's stack has to carry. system: what the host itself says it runs, else what the inventory says."""
    return StackRequest(
        host=host.name,
        gpus=cards,
        os=system or host.os,
        kernel=host.kernel,
        runtimes=runtimes,
        driver_branch=host.driver_branch,
        kernel_module=host.kernel_module,
        allow_eol=host.allow_eol,
        # A key of the host's own makes up for unsigned modules; whether it is enrolled, the host tells.
        secure_boot=False if host.secure_boot == "mok" else host.secure_boot,
        images=frozenset(host.images),
    )


def asked_runtimes(services: Iterable[Service], gpu: Gpu, catalog: Catalog) -> Runtimes:
    """Runtimes of a host's services. Two services of one runtime are one entry; a stated version goes first."""
    asked = {
        (chosen_runtime(service, gpu, catalog.models[service.model]), service.runtime_version) for service in services
    }
    stated = {runtime for runtime, version in asked if version is not None}
    return tuple(
        sorted((runtime, version) for runtime, version in asked if version is not None or runtime not in stated)
    )
