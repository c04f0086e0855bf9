"""Mode, owner and SHA-256 of files, and targets of links, each in one round trip."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyinfra.api import FactBase

_FIELDS = 6


@dataclass(frozen=True, slots=True)
class PathState:
    """A regular file as it is; `size` in bytes."""

    mode: str
    user: str
    group: str
    size: int
    sha256: str


def parse_paths(lines: Iterable[str]) -> dict[str, PathState]:
    """Parse `mode user group size sha256 path` lines; other lines are somebody's noise."""
    states = {}
    for line in lines:
        fields = line.split(" ", _FIELDS - 1)
        if len(fields) == _FIELDS and fields[3].isdecimal():
            mode, user, group, size, sha256, path = fields
            states[path] = PathState(mode, user, group, int(size), sha256)
    return states


class PathStates(FactBase[dict[str, PathState]]):
    """PathState of those paths that are regular files, by path. `hash_content=False` leaves the SHA-256 as `-`."""

    def command(self, paths: list[str], hash_content: bool = True) -> str:
        """Shell that prints a line for each path that is a regular file and no link."""
        digest = '"$(sha256sum < "$p" | cut -d" " -f1)"' if hash_content else "-"
        listed = " ".join(shlex.quote(path) for path in paths)
        return (
            f'for p in {listed}; do if [ -f "$p" ] && [ ! -L "$p" ]; then '
            f'echo "$(stat -c "%a %U %G %s" "$p")" {digest} "$p"; fi; done'
        )

    @staticmethod
    def default() -> dict[str, PathState]:
        """No path exists."""
        return {}

    def process(self, output: list[str]) -> dict[str, PathState]:
        """Parse."""
        return parse_paths(output)


class Links(FactBase[dict[str, str]]):
    """Targets of those paths that are symbolic links, by path."""

    def command(self, paths: Sequence[str]) -> str:
        """Shell that prints each link and, in the line after it, its target."""
        listed = " ".join(shlex.quote(path) for path in paths)
        return f'for p in {listed}; do [ ! -L "$p" ] || {{ echo "$p"; readlink "$p"; }}; done'

    @staticmethod
    def default() -> dict[str, str]:
        """None."""
        return {}

    def process(self, output: list[str]) -> dict[str, str]:
        """Parse."""
        return dict(zip(output[::2], output[1::2], strict=False))
