"""File locks: one `up` per lab, one build per base, one network claim at a time on the machine."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rackserve.domain.errors import LockedError

LOCK_FOLDER = Path("/run/lock")


@contextmanager
def locked(name: str, *, wait: bool, on_wait: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Hold the machine-wide lock `name`; without `wait`, a taken lock is a LockedError.

    The kernel drops the lock with the process that held it, so a killed run never leaves one behind. What is yielded is
    the lock's file descriptor: a child that inherits it holds the lock too, even after this process is gone.
    """
    LOCK_FOLDER.mkdir(parents=True, exist_ok=True)
    with (LOCK_FOLDER / f"rackserve-{name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise LockedError(
                    f"another rackserve command is changing this lab ({file.name} is held): wait for it to finish"
                ) from None
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
