"""Distribution packages, installed by a transaction that survives a lost connection and repairs an interrupted one."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from rackserve.facts.packages import Dpkg
from rackserve.operations import commands


@operation()
def installed(packages: list[str], lock_timeout: int) -> Generator[StringCommand, None, None]:
    """Have these packages installed and dpkg settled. Waits `lock_timeout` seconds for another package manager.

    pyinfra's apt operations know no lock timeout and take a dead mirror or a bad signature for success.
    """
    state = host.get_fact(Dpkg)
    missing = sorted(set(packages) - state.installed)
    if not missing and not state.unsettled:
        host.noop(f"{', '.join(packages)} installed")
        return
    yield commands.script("packages.sh", str(lock_timeout), *(missing or packages))
