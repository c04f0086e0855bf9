"""The memory facts that hold for a version of an engine."""

from __future__ import annotations

from packaging.version import InvalidVersion, Version

from rackserve.catalog.loader import Catalog
from rackserve.domain.engine import Engine


def engine_for(catalog: Catalog, runtime: str, version: str) -> Engine | None:
    """The latest entry of this runtime that is not newer than `version`; None where the catalogue has none."""
    try:
        wanted = Version(version)
    except InvalidVersion:
        return None
    entries = [
        entry for entry in catalog.engines.values() if entry.runtime == runtime and Version(entry.since) <= wanted
    ]
    return max(entries, key=lambda entry: Version(entry.since), default=None)
