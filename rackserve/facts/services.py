"""Which services of ours a host knows, whether or not the inventory still names them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pyinfra.api import FactBase

_NAME = r"rackserve@([a-z][a-z0-9-]*)"
_OWN = re.compile(rf"^(?:/etc/systemd/system/{_NAME}\.service\.d|/etc/containers/systemd/{_NAME}\.container)$")


def parse_services(lines: Iterable[str]) -> tuple[str, ...]:
    """Service names from drop-in folders and containers' files, sorted."""
    matches = (_OWN.match(line.strip()) for line in lines)
    return tuple(sorted({match[1] or match[2] for match in matches if match}))


class InstalledServices(FactBase[tuple[str, ...]]):
    """Names of services with a drop-in folder or a container's file of ours."""

    def command(self) -> str:
        """Shell that lists both."""
        return (
            "ls -1d /etc/systemd/system/rackserve@*.service.d /etc/containers/systemd/rackserve@*.container "
            "2>/dev/null || true"
        )

    @staticmethod
    def default() -> tuple[str, ...]:
        """None."""
        return ()

    def process(self, output: list[str]) -> tuple[str, ...]:
        """Parse."""
        return parse_services(output)
