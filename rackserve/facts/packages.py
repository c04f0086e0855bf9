"""What dpkg has, and what it left half done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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
        actual, error = status[1:2], status[2:3].strip()
        if actual == _INSTALLED and not error:
            installed.add(package)
        elif error or actual not in _GONE:
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
