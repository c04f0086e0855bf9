"""Releases of runtimes: complete folders beside each other, and a link to the one in use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pyinfra import host
from pyinfra.api.command import PyinfraCommand

from rackserve.facts.releases import Releases
from rackserve.operations import commands
from rackserve.runtimes.launch import RELEASES

# The newest releases that stay for a way back.
_KEEP = 3


def current(
    name: str,
    link: str,
    program: str,
    making: Iterable[PyinfraCommand],
    *,
    activate: str = "activate.sh",
    tidying: Iterable[PyinfraCommand] = (),
) -> Iterator[PyinfraCommand]:
    """Have the release of this name complete and at `link`. program: its path in it, which makes it complete.

    making: what makes the release, asked for only where it is not there yet. tidying: what then follows last.
    """
    state = host.get_fact(Releases, releases=RELEASES, link=link, program=program)
    if name in state.complete and state.current == name:
        host.noop(f"{name} is current")
        return
    complete = name in state.complete
    if not complete:
        yield from making
    yield commands.script(activate, f"{RELEASES}/{name}", link, str(_KEEP))
    if not complete:
        yield from tidying
