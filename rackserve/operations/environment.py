"""Releases that are Python environments: uv installs what a requirements file pins, beside the release in use."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from rackserve.facts.releases import Releases
from rackserve.operations import commands
from rackserve.operations.release import KEEP, WORK
from rackserve.runtimes.environments import FromRequirements
from rackserve.runtimes.launch import CURRENT, RELEASES

_PROGRAM = "bin/python"


@operation()
def python_release(origin: FromRequirements, python_mirror: str | None = None) -> Generator[StringCommand, None, None]:
    """Have the environment of this origin complete and current. The packages it needs are installed by then.

    python_mirror: base URL that stands in for where uv's own Pythons are downloaded from; their checksums are uv's.
    """
    link = f"{CURRENT}/{origin.runtime}"
    state = host.get_fact(Releases, releases=RELEASES, link=link, program=_PROGRAM)
    if origin.release in state.complete and state.current == origin.release:
        host.noop(f"{origin.release} is current")
        return
    uv = f"{RELEASES}/uv-{origin.uv.version}"
    if origin.release not in state.complete:
        yield commands.write_file(f"{WORK}/environments/uv-{origin.uv.version}.txt", origin.uv.requirement, "644")
        yield commands.script("uv.sh", uv, WORK)
        yield commands.write_file(f"{WORK}/environments/{origin.release}.txt", origin.text, "644")
        yield _environment(origin, uv, python_mirror or "")
    yield commands.script("activate.sh", f"{RELEASES}/{origin.release}", link, str(KEEP))
    if origin.release not in state.complete:
        # After older releases are gone, so that nothing is kept for them.
        yield commands.script("uv-cache.sh", uv, WORK)


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
    )
