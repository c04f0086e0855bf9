"""Which runtime releases a host holds and which one is current."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """`complete` releases have all their files; `current` is the one the link points to."""

    complete: frozenset[str]
    current: str


def parse_releases(lines: Iterable[str]) -> ReleaseState:
    """Parse `complete=NAME` and `current=NAME` lines."""
    complete, current = set(), ""
    for line in lines:
        key, _, value = line.partition("=")
        if key == "complete":
            complete.add(value)
        elif key == "current":
            current = value
    return ReleaseState(frozenset(complete), current)


class Releases(FactBase[ReleaseState]):
    """ReleaseState of one runtime. A release is complete when its program can be executed."""

    def command(self, releases: str, link: str, program: str) -> str:
        """Shell that lists releases whose `program` (relative path) is executable."""
        folder = shlex.quote(releases)
        return (
            f'for r in {folder}/*/; do [ -x "$r"{shlex.quote(program)} ] && echo "complete=$(basename "$r")"; done; '
            f'l=$(readlink {shlex.quote(link)}) && echo "current=$(basename "$l")"; true'
        )

    @staticmethod
    def default() -> ReleaseState:
        """None."""
        return ReleaseState(frozenset(), "")

    def process(self, output: list[str]) -> ReleaseState:
        """Parse."""
        return parse_releases(output)
