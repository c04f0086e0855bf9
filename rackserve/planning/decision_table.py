"""The stack of every tag under every operating system: what docs/drivers.md shows, and what its tests hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rackserve.catalog.loader import Catalog
from rackserve.domain.gpu import Gpu
from rackserve.planning.stack import Stack, StackRequest, solve

_SOURCES = {
    "none": "",
    "system": "of the system",
    "distribution": "signed by the distribution",
    "nvidia": "NVIDIA's repository",
    "amd": "AMD's repository",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One tag under one system.

    driver: branch, flavour of the kernel module and where it comes from; empty for hosts without a GPU.
    kernel: a package that has to be installed and booted first. runtimes: the newest version and form of each runtime
    that suits, in the catalogue's order. refused: why there is no driver, empty if there is one.
    """

    driver: str = ""
    kernel: str = ""
    runtimes: tuple[str, ...] = ()
    refused: str = ""


def table(catalog: Catalog) -> dict[str, dict[str, Cell]]:
    """Cells by tag and system, in the catalogue's order."""
    return {tag: {system: cell(catalog, tag, system) for system in catalog.stacks.systems} for tag in catalog.gpus}


def cell(catalog: Catalog, tag: str, system: str) -> Cell:
    """What would be installed on such a host, or why nothing."""
    gpu = catalog.gpus[tag]
    cards = () if gpu.vendor == "none" else (gpu,)
    bare = solve(StackRequest(tag, cards, os=system), catalog)
    if not isinstance(bare, Stack):
        return Cell(refused="; ".join(dict.fromkeys(problem.message.replace(tag, "the card") for problem in bare)))
    what = " ".join(part for part in (bare.driver_branch, bare.kernel_module) if part)
    driver = ", ".join(part for part in (what, _SOURCES.get(bare.driver_source, "")) if part)
    return Cell(driver, bare.kernel_package, tuple(_runtimes(catalog, tag, cards, system)))


def _runtimes(catalog: Catalog, tag: str, cards: tuple[Gpu, ...], system: str) -> Iterator[str]:
    for runtime in dict.fromkeys(entry.runtime for entry in catalog.stacks.runtimes.values()):
        stack = solve(StackRequest(tag, cards, os=system, runtimes=((runtime, None),)), catalog)
        if isinstance(stack, Stack):
            found = stack.runtimes[runtime]
            yield f"{runtime} {found.version} ({found.install})"
