"""Which services of ours a host knows, whether or not the inventory still names them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase

_NAME = r"([a-z][a-z0-9-]*)"
_OWN = re.compile(
    rf"^(?:/etc/systemd/system/rackserve@{_NAME}\.service\.d|/etc/containers/systemd/rackserve@{_NAME}\.container)$"
)
_CHECKED = re.compile(rf"^/etc/systemd/system/rackserve-check@{_NAME}\.service\.d$")


@dataclass(frozen=True, slots=True)
class Installed:
    """Names of services, sorted. served: those with a unit. checked: those with one that asks whether they compile."""

    served: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Both: a service that was never started for it may have a check alone."""
        return tuple(sorted({*self.served, *self.checked}))


def parse_services(lines: Iterable[str]) -> Installed:
    """Service names from drop-in folders and containers' files."""
    paths = [line.strip() for line in lines]
    served = {match[1] or match[2] for path in paths if (match := _OWN.match(path))}
    checked = {match[1] for path in paths if (match := _CHECKED.match(path))}
    return Installed(tuple(sorted(served)), tuple(sorted(checked)))


class InstalledServices(FactBase[Installed]):
    """Names of services with a drop-in folder or a container's file of ours, and of those that have a check."""

    def command(self) -> str:
        """Shell that lists them."""
        return (
            "ls -1d /etc/systemd/system/rackserve@*.service.d /etc/systemd/system/rackserve-check@*.service.d "
            "/etc/containers/systemd/rackserve@*.container 2>/dev/null || true"
        )

    @staticmethod
    def default() -> Installed:
        """None."""
        return Installed()

    def process(self, output: list[str]) -> Installed:
        """Parse."""
        return parse_services(output)
