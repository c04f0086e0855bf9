"""The stack of every tag under every operating system, as rows of one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rackserve.catalog.loader import Catalog
from rackserve.planning.stack import Stack, StackRequest, solve


@dataclass(frozen=True, slots=True)
class Row:
    """One tag under one system.

    driver: branch and flavour of the kernel module, empty where the cards need none. runtimes: version and form of the
    newest one of each runtime that suits, without those that do not. refused: why no driver goes with the system.
    """

    tag: str
    os: str
    driver: str
    runtimes: Mapping[str, str]
    refused: tuple[str, ...]


def rows(catalog: Catalog) -> Iterator[Row]:
    """All tags times all systems, in the catalogue's order."""
    for tag in catalog.gpus:
        for system in catalog.stacks.systems:
            yield _row(catalog, tag, system)


def _row(catalog: Catalog, tag: str, system: str) -> Row:
    bare = solve(StackRequest(tag, (catalog.gpus[tag],), os=system), catalog)
    if not isinstance(bare, Stack):
        return Row(tag, system, "", {}, tuple(problem.message for problem in bare))
    found: dict[str, str] = {}
    for runtime in dict.fromkeys(entry.runtime for entry in catalog.stacks.runtimes.values()):
        stack = solve(StackRequest(tag, (catalog.gpus[tag],), os=system, runtimes=((runtime, None),)), catalog)
        if isinstance(stack, Stack):
            found[runtime] = f"{stack.runtimes[runtime].version} ({stack.runtimes[runtime].install})"
    driver = " ".join(part for part in (bare.driver_branch, bare.kernel_module) if part)
    return Row(tag, system, driver, found, ())
