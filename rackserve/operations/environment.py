"""Releases that are Python environments: uv installs what a requirements file pins, beside the release in use."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.command import PyinfraCommand

from rackserve.facts.releases import Releases
from rackserve.operations import commands
from rackserve.operations.current import KEEP, WORK, activation
from rackserve.runtimes.environments import FromRequirements
from rackserve.runtimes.launch import CURRENT, PLANNED, RELEASES


@operation()
def python_release(origin: FromRequirements, python_mirror: str | None = None) -> Generator[PyinfraCommand, None, None]:
    """Have the environment of this origin complete, and named as the planned one. What it needs is installed by then.

    The one in use is left alone: it is replaced once the planned one has been asked whether it compiles.
    python_mirror: base URL that stands in for where uv's own Pythons are downloaded from; their checksums are uv's.
    """
    link = f"{PLANNED}/{origin.runtime}"
    state = host.get_fact(Releases, releases=RELEASES, link=link, program=origin.last)
    complete = origin.release in state.complete
    if complete and state.current == origin.release:
        host.noop(f"{origin.release} is planned")
        return
    if not complete:
        yield from _make(origin, _uv(origin), python_mirror or "")
    yield commands.link(link, f"{RELEASES}/{origin.release}")


@operation()
def python_current(origin: FromRequirements) -> Generator[PyinfraCommand, None, None]:
    """Have the environment of this origin current, and none but the newest ones beside it."""
    link = f"{CURRENT}/{origin.runtime}"
    if host.get_fact(Releases, releases=RELEASES, link=link, program=origin.last).current == origin.release:
        host.noop(f"{origin.release} is current")
        return
    yield activation(origin.release, link)
    # After older releases are gone, so that nothing is kept for them.
    yield commands.script("uv-cache.sh", _uv(origin), WORK)


def _uv(origin: FromRequirements) -> str:
    return f"{RELEASES}/uv-{origin.uv.version}"


def _make(origin: FromRequirements, uv: str, mirror: str) -> Iterator[PyinfraCommand]:
    yield commands.write_file(f"{WORK}/environments/uv-{origin.uv.version}.txt", origin.uv.requirement, "644")
    yield commands.script("uv.sh", uv, WORK)
    yield commands.write_file(f"{WORK}/environments/{origin.release}.txt", origin.text, "644")
    yield _environment(origin, uv, mirror)


def _environment(origin: FromRequirements, uv: str, mirror: str) -> StringCommand:
    return commands.script(
        "environment.sh",
        f"{RELEASES}/{origin.release}",
        WORK,
        uv,
        origin.program or "",
        origin.python,
        origin.runtime,
        origin.version,
        origin.backend,
        origin.family,
        str(origin.installed_gib),
        mirror,
        origin.gcc,
        " ".join(origin.without),
        str(KEEP),
    )
