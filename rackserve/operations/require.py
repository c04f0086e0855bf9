"""Refuse one host, with a reason, before anything on it is changed."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from rackserve.operations import commands


@operation()
def require(problems: list[str]) -> Generator[StringCommand, None, None]:
    """Fail on this host if there are problems; each is one line for the operator."""
    if not problems:
        host.noop("as required")
        return
    yield commands.refuse("\n".join(problems))
