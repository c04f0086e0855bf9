"""Take down the labs of test runs that were killed: `python -m tests.lab.left_over`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from rackserve.domain.errors import LockedError
from rackserve.lab.lab import Lab


def remove_left_over() -> None:
    """Their names end in a process that is gone."""
    for folder in Lab("test").names.folder.parent.glob("test-*-*"):
        if not Path("/proc", folder.name.rsplit("-", 1)[1]).exists():
            # Tests that begin at the same time find the same ones: one of them takes a lab down.
            with suppress(LockedError):
                Lab(folder.name).down()


if __name__ == "__main__":
    remove_left_over()
