"""What rackserve brought to a host, gone again."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from pyinfra import host, logger, state
from pyinfra.api import StringCommand, operation
from pyinfra.api.state import StateStage

from rackserve.facts.existing import Existing
from rackserve.facts.lines import Lines
from rackserve.facts.own_packages import OwnPackages
from rackserve.operations import commands

# What the scripts of uninstalling had to leave, for the operator to see.
LEFT = "/run/rackserve-uninstall.log"


@operation()
def own_packages_gone(lock_timeout: int) -> Generator[StringCommand, None, None]:
    """Have none of the packages that rackserve installed, except kernels and what other packages need by now.

    What was there before rackserve came stays. lock_timeout: seconds to wait for another package manager.
    """
    found = host.get_fact(OwnPackages)
    if not found.names:
        host.noop("no packages of rackserve's")
        return
    yield commands.script(f"uninstall-{found.format}.sh", str(lock_timeout))


@operation()
def memory_limit_gone(label: str, path: str) -> Generator[StringCommand, None, None]:
    """Have no launchd job of ours on an Apple machine, and macOS's own limit."""
    if not host.get_fact(Existing, paths=[path]):
        host.noop("no memory limit of rackserve's")
        return
    yield commands.script("wired-limit-gone.sh", label, path)


@operation()
def absent(paths: Sequence[str]) -> Generator[StringCommand, None, None]:
    """Have none of our own folders and files; a `*` in a path stands for any part of a name."""
    existing = host.get_fact(Existing, paths=list(paths))
    if not existing:
        host.noop("nothing of rackserve here")
        return
    yield commands.script("uninstall.sh", *existing)
    if state.current_stage == StateStage.Execute:
        for line in host.get_fact(Lines, path=LEFT):
            logger.info(f"{host.print_prefix}{line}")
