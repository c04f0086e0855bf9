"""Where the operator's machine keeps what is costly to make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`rackserve` below the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rackserve"


def builds_folder() -> Path:
    """Runtimes built from source, one archive per version, distribution and CPU architecture."""
    return cache_folder() / "builds"
