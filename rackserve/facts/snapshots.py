"""A model's folder as its manifest says it was, and as it is."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase

_MANIFEST = ".rackserve-manifest.json"
_SIZES = "sizes:"


@dataclass(frozen=True, slots=True)
class SnapshotState:
    """A folder that was complete when it got its name. `damaged`: files that are missing or of another size by now."""

    damaged: tuple[str, ...]


def parse_snapshot(lines: Iterable[str]) -> SnapshotState | None:
    """Parse a manifest, a line `sizes:`, and a line `SIZE PATH` for each file; None without a manifest to go by."""
    manifest, sizes = _halves(list(lines))
    try:
        wanted = {str(file["file"]): int(file["size"]) for file in json.loads(manifest)["files"]}
    except (ValueError, KeyError, TypeError):
        return None
    return SnapshotState(tuple(sorted(path for path, size in wanted.items() if sizes.get(path) != size)))


def _halves(lines: list[str]) -> tuple[str, dict[str, int]]:
    middle = lines.index(_SIZES) if _SIZES in lines else len(lines)
    sizes = (line.partition(" ") for line in lines[middle + 1 :])
    return "\n".join(lines[:middle]), {path: int(size) for size, _, path in sizes if size.isdecimal()}


class Snapshot(FactBase[SnapshotState | None]):
    """SnapshotState of a folder, or of where a link leads to; None where nothing complete ever was."""

    def command(self, path: str) -> str:
        """Shell that prints the manifest and the size of each file below."""
        return (
            f"cd {shlex.quote(path)} 2>/dev/null && cat {_MANIFEST} 2>/dev/null && echo {_SIZES} && "
            'find . -type f -printf "%s %P\\n"; true'
        )

    def process(self, output: list[str]) -> SnapshotState | None:
        """Parse."""
        return parse_snapshot(output)
