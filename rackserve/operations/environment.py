"""Releases that are Python environments: uv installs what a requirements file pins, beside the release in use."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from pyinfra.api import StringCommand, operation
from pyinfra.api.command import PyinfraCommand

from rackserve.operations import commands
from rackserve.operations.current import current
from rackserve.operations.release import WORK
from rackserve.runtimes.environments import FromRequirements
from rackserve.runtimes.launch import CURRENT, RELEASES


@operation()
def python_release(origin: FromRequirements, python_mirror: str | None = None) -> Generator[PyinfraCommand, None, None]:
    """Have the environment of this origin complete and current. The packages it needs are installed by then.

    python_mirror: base URL that stands in for where uv's own Pythons are downloaded from; their checksums are uv's.
    """
    uv = f"{RELEASES}/uv-{origin.uv.version}"
    making = _make(origin, uv, python_mirror or "")
    # After older releases are gone, so that nothing is kept for them.
    tidying = (commands.script("uv-cache.sh", uv, WORK),)
    yield from current(origin.release, f"{CURRENT}/{origin.runtime}", origin.last, making, tidying=tidying)


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
    )
