"""Which of some paths exist, whatever they are."""

from __future__ import annotations

import shlex

from pyinfra.api import FactBase


class Existing(FactBase[tuple[str, ...]]):
    """Those of `paths` that exist, links without a target included; a `*` in one stands for any part of a name."""

    def command(self, paths: list[str]) -> str:
        """Shell that prints the paths that are there."""
        listed = " ".join("*".join(map(shlex.quote, path.split("*"))) for path in paths)
        return f'for p in {listed}; do if [ -e "$p" ] || [ -L "$p" ]; then echo "$p"; fi; done'

    @staticmethod
    def default() -> tuple[str, ...]:
        """None of them."""
        return ()

    def process(self, output: list[str]) -> tuple[str, ...]:
        """One path per line."""
        return tuple(line for line in output if line)
