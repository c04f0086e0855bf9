"""What a small file on a host says."""

from __future__ import annotations

import shlex

from pyinfra.api import FactBase


class Lines(FactBase[tuple[str, ...]]):
    """The lines of a file, none where it is not there."""

    def command(self, path: str) -> str:
        """Shell that prints it."""
        return f"cat {shlex.quote(path)} 2>/dev/null; true"

    @staticmethod
    def default() -> tuple[str, ...]:
        """None."""
        return ()

    def process(self, output: list[str]) -> tuple[str, ...]:
        """As they are."""
        return tuple(output)
