"""The facts that hold for a version of an engine: its memory, and what it compiles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from packaging.version import InvalidVersion, Version

from rackserve.catalog.loader import Catalog
from rackserve.domain.compiler import Compiler
from rackserve.domain.engine import Engine


class _Since(Protocol):
    @property
    def since(self) -> str: ...


_Entry = TypeVar("_Entry", bound=_Since)


def engine_for(catalog: Catalog, runtime: str, version: str) -> Engine | None:
    """The latest entry of this runtime that is not newer than `version`; None where the catalogue has none."""
    return _latest((entry for entry in catalog.engines.values() if entry.runtime == runtime), version)


def compiler_for(catalog: Catalog, runtime: str, version: str, backend: str) -> Compiler | None:
    """What this version of a runtime compiles; None for one that compiles nothing."""
    entries = (entry for entry in catalog.compilers.values() if (entry.runtime, entry.backend) == (runtime, backend))
    return _latest(entries, version)


def _latest(entries: Iterable[_Entry], version: str) -> _Entry | None:
    try:
        wanted = Version(version)
    except InvalidVersion:
        return None
    known = [entry for entry in entries if Version(entry.since) <= wanted]
    return max(known, key=lambda entry: Version(entry.since), default=None)
