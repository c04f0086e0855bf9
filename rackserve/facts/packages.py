"""What dpkg has, and what it left half done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase

# Desired and actual state as dpkg abbreviates them; the third character would be an error flag.
_INSTALLED = ("ii ", "hi ")
_SETTLED = (*_INSTALLED, "rc ", "un ", "pn ", "hc ")


@dataclass(frozen=True, slots=True)
class DpkgState:
    """`installed` packages, and `unsettled` ones that an interrupted run left unpacked or half configured."""

    installed: frozenset[str]
    unsettled: tuple[str, ...]


def parse_dpkg(lines: Iterable[str]) -> DpkgState:
    """Parse `package|abbreviation` lines."""
    installed, unsettled = set(), []
    for line in lines:
        package, separator, status = line.partition("|")
        if not separator:
            continue
        status = f"{status:<3}"[:3]
        if status in _INSTALLED:
            installed.add(package)
        elif status not in _SETTLED:
            unsettled.append(package)
    return DpkgState(frozenset(installed), tuple(sorted(unsettled)))


class Dpkg(FactBase[DpkgState]):
    """The state of dpkg's database."""

    def command(self) -> str:
        """Shell that lists all packages. A pending update journal counts as unsettled: dpkg died while writing."""
        return (
            "dpkg-query -W -f '${Package}|${db:Status-Abbrev}\\n' 2>/dev/null; "
            "[ -z \"$(ls /var/lib/dpkg/updates 2>/dev/null | grep -v tmp)\" ] || echo 'dpkg-journal|xx '; true"
        )

    @staticmethod
    def default() -> DpkgState:
        """No dpkg."""
        return DpkgState(frozenset(), ())

    def process(self, output: list[str]) -> DpkgState:
        """Parse."""
        return parse_dpkg(output)
