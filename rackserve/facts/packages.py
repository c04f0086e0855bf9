"""What dpkg has, and what it left half done; what rpm lacks."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pyinfra.api import FactBase

# The second letter of dpkg's abbreviation: i is installed (whatever is desired), n and c are gone. The others were left
# half way (unpacked, half installed, half configured, triggers pending). A third letter is an error.
_INSTALLED = "i"
_GONE = "nc"


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
        kind = dpkg_status(status)
        if kind == "installed":
            installed.add(package)
        elif kind == "unsettled":
            unsettled.append(package)
    return DpkgState(frozenset(installed), tuple(sorted(unsettled)))


def dpkg_status(abbreviation: str) -> Literal["installed", "unsettled", "gone"]:
    """What dpkg's abbreviation of a package's state means."""
    actual, error = abbreviation[1:2], abbreviation[2:3].strip()
    if actual == _INSTALLED and not error:
        return "installed"
    return "unsettled" if error or actual not in _GONE else "gone"


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


class RpmAbsent(FactBase[tuple[str, ...]]):
    """Those of some packages that nothing installed provides, by rpm's word."""

    def command(self, packages: list[str]) -> str:
        """Shell that prints the names of what is not there; all of them where there is no rpm."""
        names = " ".join(map(shlex.quote, packages))
        return f'for p in {names}; do rpm -q --quiet --whatprovides "$p" 2>/dev/null || echo "$p"; done'

    @staticmethod
    def default() -> tuple[str, ...]:
        """Nothing is absent."""
        return ()

    def process(self, output: list[str]) -> tuple[str, ...]:
        """Parse."""
        return tuple(output)
