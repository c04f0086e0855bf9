"""Releases of runtimes: complete folders beside each other, and a link to the one in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pyinfra import host
from pyinfra.api import StringCommand
from pyinfra.api.command import PyinfraCommand

from rackserve.facts.releases import Releases
from rackserve.operations import commands
from rackserve.runtimes.launch import RELEASES

# What is worked with on a host, and what services have compiled, by service and release.
WORK = "/var/cache/rackserve"
# The newest releases that stay for a way back.
KEEP = 3


def activation(name: str, link: str) -> StringCommand:
    """Have the release of this name at `link`, none but the newest beside it, and no caches of those that go."""
    return commands.script("activate.sh", f"{RELEASES}/{name}", link, str(KEEP), WORK)


def current(
    name: str,
    link: str,
    program: str,
    making: Iterable[PyinfraCommand],
    *,
    activate: Callable[[str, str], StringCommand] = activation,
) -> Iterator[PyinfraCommand]:
    """Have the release of this name complete and at `link`. program: its path in it, which makes it complete.

    making: what makes the release, asked for only where it is not there yet.
    """
    state = host.get_fact(Releases, releases=RELEASES, link=link, program=program)
    if name in state.complete and state.current == name:
        host.noop(f"{name} is current")
        return
    if name not in state.complete:
        yield from making
    yield activate(name, link)
