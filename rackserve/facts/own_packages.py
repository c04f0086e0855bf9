"""Packages that are on a host because of rackserve: the list that its transactions write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pyinfra.api import FactBase

ADDED = "/var/lib/rackserve/packages-added"
BEFORE = "/var/lib/rackserve/packages-before"
UNITS = "/var/lib/rackserve/units-enabled"


@dataclass(frozen=True, slots=True)
class OwnPackagesState:
    """names: as the package manager has them. format: whose they are."""

    names: tuple[str, ...]
    format: Literal["deb", "rpm"]


def parse_own_packages(lines: Iterable[str]) -> OwnPackagesState:
    """Parse the format's word, then a name a line."""
    words = [line.strip() for line in lines if line.strip()]
    return OwnPackagesState(tuple(words[1:]), "rpm" if words[:1] == ["rpm"] else "deb")


class OwnPackages(FactBase[OwnPackagesState]):
    """OwnPackagesState of a host with dpkg or rpm; no names on any other."""

    def command(self) -> str:
        """Shell that prints both; an unfinished list of an interrupted run, and one of units, count as a name each."""
        return (
            "if [ -d /var/lib/dpkg ]; then echo deb; else echo rpm; fi; "
            f"cat {ADDED} 2>/dev/null; for p in {BEFORE} {UNITS}; do [ ! -e $p ] || echo $p; done; true"
        )

    @staticmethod
    def default() -> OwnPackagesState:
        """None."""
        return parse_own_packages(())

    def process(self, output: list[str]) -> OwnPackagesState:
        """Parse."""
        return parse_own_packages(output)
