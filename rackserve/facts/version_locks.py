"""Packages that dnf holds at their version."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pyinfra.api import FactBase

# NAME-EPOCH:VERSION-RELEASE.*, as `dnf versionlock add` writes it. A leading ! excludes a version instead.
_ENTRY = re.compile(r"^(?P<name>[A-Za-z0-9][^:]*)-(?:\d+:)?(?P<version>[^-:]+)-[^-]+$")


def parse_version_locks(lines: Iterable[str]) -> dict[str, str]:
    """Locked upstream versions by package name."""
    matches = (_ENTRY.match(line.strip()) for line in lines)
    return {match["name"]: match["version"] for match in matches if match}


class VersionLocks(FactBase[dict[str, str]]):
    """Locked upstream versions by package name, empty where dnf's plugin is not in use."""

    def command(self) -> str:
        """Shell that prints the plugin's list."""
        return "cat /etc/dnf/plugins/versionlock.list 2>/dev/null; true"

    @staticmethod
    def default() -> dict[str, str]:
        """None."""
        return {}

    def process(self, output: list[str]) -> dict[str, str]:
        """Parse."""
        return parse_version_locks(output)
