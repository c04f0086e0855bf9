"""How much memory the GPU of an Apple machine may wire down, now and after a start."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase


@dataclass(frozen=True, slots=True)
class WiredLimitState:
    """limit_mib: in force, 0 for the system's default. sha256: of the launchd job's file, empty for none."""

    limit_mib: int
    sha256: str
    loaded: bool


def parse_wired_limit(lines: Iterable[str]) -> WiredLimitState:
    """Parse `key=value` lines."""
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    limit = values.get("limit", "")
    return WiredLimitState(int(limit) if limit.isdecimal() else 0, values.get("sha256", ""), "loaded" in values)


class WiredLimit(FactBase[WiredLimitState]):
    """WiredLimitState of a machine with macOS."""

    def command(self, label: str, path: str) -> str:
        """Shell that prints the setting, the file's checksum and whether launchd knows the job."""
        return (
            'echo "limit=$(sysctl -n iogpu.wired_limit_mb 2>/dev/null)"; '
            f'echo "sha256=$(shasum -a 256 {shlex.quote(path)} 2>/dev/null | cut -d" " -f1)"; '
            f"launchctl print system/{shlex.quote(label)} >/dev/null 2>&1 && echo loaded=yes; true"
        )

    @staticmethod
    def default() -> WiredLimitState:
        """Nothing set."""
        return WiredLimitState(0, "", loaded=False)

    def process(self, output: list[str]) -> WiredLimitState:
        """Parse."""
        return parse_wired_limit(output)
