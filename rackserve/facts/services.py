"""Which services of ours a host knows, whether or not the inventory still names them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pyinfra.api import FactBase

_DROP_IN = re.compile(r"^/etc/systemd/system/rackserve@([a-z][a-z0-9-]*)\.service\.d$")


def parse_services(lines: Iterable[str]) -> tuple[str, ...]:
    """Service names from drop-in folders, sorted."""
    matches = (_DROP_IN.match(line.strip()) for line in lines)
    return tuple(sorted(match[1] for match in matches if match))


class InstalledServices(FactBase[tuple[str, ...]]):
    """Names of services with a drop-in folder of ours."""

    def command(self) -> str:
        """Shell that lists drop-in folders."""
        return "ls -1d /etc/systemd/system/rackserve@*.service.d 2>/dev/null || true"

    @staticmethod
    def default() -> tuple[str, ...]:
        """None."""
        return ()

    def process(self, output: list[str]) -> tuple[str, ...]:
        """Parse."""
        return parse_services(output)
