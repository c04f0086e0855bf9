"""Services: running exactly what was planned, or gone."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from pyinfra import host
from pyinfra.api import StringCommand, operation

from rackserve.facts.services import InstalledServices
from rackserve.facts.units import Unit
from rackserve.operations import commands


@operation()
def serving(unit: str, digest: str, program: str, key_file: str, timeout: int) -> Generator[StringCommand, None, None]:
    """Have the unit enabled and serving the plan of this digest, with the program and key that are on disk.

    Decided by what the running process was started with and not by what this run changed: a run that died between
    writing a file and restarting leaves nothing that a later run would miss. Returns when a completion was answered,
    at the latest after `timeout` seconds.
    """
    state = host.get_fact(Unit, unit=unit, program=program, key_file=key_file)
    if state.runs(digest):
        host.noop(f"{unit} serves the plan")
        return
    yield commands.script("start.sh", unit, str(timeout))


@operation()
def only(names: Sequence[str]) -> Generator[StringCommand, None, None]:
    """Have no service of ours but these. Models stay on disk."""
    surplus = [name for name in host.get_fact(InstalledServices) if name not in names]
    if not surplus:
        host.noop("no other services")
        return
    for name in surplus:
        yield commands.script("remove-service.sh", name)
