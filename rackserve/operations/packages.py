"""Distribution packages, installed by a transaction that survives a lost connection and repairs an interrupted one."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from pyinfra import host
from pyinfra.api import StringCommand, operation

from rackserve.facts.packages import Dpkg, RpmAbsent
from rackserve.operations import commands
from rackserve.planning.driver_recipes import PackageManager


@operation()
def installed(packages: list[str], lock_timeout: int, manager: PackageManager) -> Generator[StringCommand, None, None]:
    """Have these packages installed, and nothing of dpkg's left half done.

    lock_timeout: seconds to wait for another package manager.

    pyinfra's own operations know no lock timeout and take a dead mirror or a bad signature for success.
    """
    if manager == "dnf":
        absent = host.get_fact(RpmAbsent, packages=packages)
        if not absent:
            host.noop(f"{', '.join(packages)} installed")
            return
        yield packages_script(absent, lock_timeout, manager)
        return
    state = host.get_fact(Dpkg)
    missing = sorted(set(packages) - state.installed)
    if not missing and not state.unsettled:
        host.noop(f"{', '.join(packages)} installed")
        return
    yield packages_script(missing or packages, lock_timeout, manager)


def packages_script(packages: Sequence[str], lock_timeout: int, manager: PackageManager) -> StringCommand:
    """What installs packages that are missing."""
    if manager == "dnf":
        # It reads the lists anew first; no stream of a module is entered.
        return commands.script("refresh-rpm.sh", str(lock_timeout), "", *packages)
    return commands.script("packages.sh", str(lock_timeout), *packages)
