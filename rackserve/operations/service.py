"""Services: running exactly what was planned, or gone."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from pyinfra import host, state
from pyinfra.api import StringCommand, operation

from rackserve.facts.services import InstalledServices
from rackserve.facts.units import Unit
from rackserve.operations import commands
from rackserve.rendering.compile_checks import check_unit
from rackserve.rendering.units import health_units


@operation()
def serving(
    unit: str,
    digest: str,
    program: str | None,
    key_file: str | None,
    timeout: int,
    *,
    hosts: Sequence[str] = (),
    caches: str | None = None,
) -> Generator[StringCommand, None, None]:
    """Have the unit enabled, watched, and serving the plan of this digest with the program and key that are on disk.

    program: None for a server in a container. key_file: None for servers that know no keys.

    Decided by what the running process was started with and not by what this run changed: a run that died between
    writing a file and restarting leaves nothing that a later run would miss. Returns when a completion was answered,
    at the latest after `timeout` seconds. Refuses where one of `hosts`, which it runs on too, has failed in this run.
    caches: a folder of the service's in which nothing is read any more but what is kept by release or image.
    """
    if refusal := _left_alone(unit, hosts):
        yield refusal
        return
    found = host.get_fact(Unit, unit=unit, program=program, key_file=key_file)
    if found.runs(digest) and found.watched:
        host.noop(f"{unit} serves the plan")
        return
    if found.runs(digest):
        yield commands.script("watch.sh", health_units(unit)[0])
        return
    kind = "program" if program is not None else "container"
    yield commands.script("start.sh", unit, str(timeout), kind, *([caches] if caches is not None else []))


@operation()
def compiles(
    unit: str, digest: str, program: str, key_file: str | None, check: str
) -> Generator[StringCommand, None, None]:
    """Have the unit run the plan of this digest with the planned release, or that release asked whether it compiles.

    program: the folder of libraries in the planned release, by its own path. check: the unit that asks, in the sandbox
    that the service will have. Where it does not, this fails before anything of the service is touched.
    """
    if host.get_fact(Unit, unit=unit, program=program, key_file=key_file).runs(digest):
        host.noop(f"{unit} runs the planned release")
        return
    yield commands.script("compile-check.sh", check, unit)


@operation()
def together(hosts: Sequence[str]) -> Generator[StringCommand, None, None]:
    """Have none of these hosts failed in this run, which serve instances together with this one.

    A release that is current or a unit that is written on some of them only would take such an instance down.
    """
    if failed := _failed(hosts):
        yield commands.refuse(
            f"{failed} failed in this run, and instances over several hosts bind this one to it: they go on as they "
            "are, run again once it is mended"
        )
        return
    host.noop("no host of the same instances has failed")


@operation()
def cleared(
    unit: str, digest: str, program: str | None, key_file: str | None, hosts: Sequence[str]
) -> Generator[StringCommand, None, None]:
    """Have the unit stopped, its requests finished, unless it serves the plan of this digest.

    Refuses where one of `hosts`, which it runs on too, has failed in this run: it would wait for that one in vain.
    """
    if refusal := _left_alone(unit, hosts):
        yield refusal
        return
    found = host.get_fact(Unit, unit=unit, program=program, key_file=key_file)
    if found.runs(digest) or found.active in {"inactive", "failed"}:
        host.noop(f"{unit} has nothing to finish")
        return
    yield commands.script("stop.sh", unit)


def _left_alone(unit: str, hosts: Sequence[str]) -> StringCommand | None:
    """What ends it here where one of these hosts has failed by now."""
    failed = _failed(hosts)
    return commands.refuse(f"{unit} needs all of its hosts, and {failed} failed in this run") if failed else None


def _failed(hosts: Sequence[str]) -> str:
    """Those of these hosts that have failed by now; empty where none has."""
    return ", ".join(sorted(other.name for other in state.failed_hosts if other.name in hosts)) if hosts else ""


@operation()
def only(names: Sequence[str], checked: Sequence[str] = ()) -> Generator[StringCommand, None, None]:
    """Have no service of ours but these, and nothing that asks for one whether it compiles but for those in `checked`.

    Models stay on disk.
    """
    found = host.get_fact(InstalledServices)
    surplus = [name for name in found.all if name not in names]
    unasked = [name for name in found.checked if name in names and name not in checked]
    if not (surplus or unasked):
        host.noop("no other services")
        return
    for name in surplus:
        yield commands.script("remove-service.sh", name)
    for name in unasked:
        yield commands.script("forget-check.sh", check_unit(name))
