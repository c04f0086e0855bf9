"""Room for the labs' hosts: each takes six of root's inotify instances, of which a kernel gives out 128.

The limit is raised while a run goes on, and put back by the last run that needs it.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
LOCK = Path("/run/lock/rackserve-tests-inotify.lock")
WANTED = 1024
OF_A_HOST = 6
# What the largest lab of a test has, and what other programs of root take.
HOSTS_OF_A_LAB = 14
OTHERS = 20


@contextmanager
def room_for_labs(
    lanes: int, say: Callable[[str], None] = print, limit: Path = LIMIT, lock: Path = LOCK
) -> Iterator[int]:
    """How many lanes the limit has room for: all of them where it may be raised.

    lock: held by every run that needs the limit as it is; it has what the limit was before the first of them.
    """
    if os.geteuid() != 0 or not limit.exists():
        # There are no labs.
        yield lanes
        return
    with _users(lock) as users:
        with _alone(lock):
            _raise(users, limit, say)
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield max(1, min(lanes, (int(limit.read_text()) - OTHERS) // (HOSTS_OF_A_LAB * OF_A_HOST)))
        finally:
            with _alone(lock):
                _put_back(users, limit, lock)


def _users(lock: Path) -> IO[str]:
    try:
        return lock.open("a+")
    except OSError as error:
        sys.exit(f"{lock}: {error.strerror}; by it runs agree on {LIMIT}, so the tests' labs need it")


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """No other run changes the limit meanwhile."""
    with lock.with_suffix(".change").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _raise(users: IO[str], limit: Path, say: Callable[[str], None]) -> None:
    found = int(limit.read_text())
    if found != WANTED:
        # Set by somebody since: what a killed run has noted counts no longer.
        users.truncate(0)
    if found >= WANTED:
        return
    try:
        limit.write_text(str(WANTED))
    except OSError as error:
        say(f"{limit} is {found} and cannot be raised ({error.strerror}): fewer labs at once")
        return
    users.write(str(found))
    users.flush()


def _put_back(users: IO[str], limit: Path, lock: Path) -> None:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    before = lock.read_text()
    if before and int(limit.read_text()) == WANTED:
        limit.write_text(before)
    lock.write_text("")
