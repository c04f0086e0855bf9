"""What tests make once and keep outside the checkout: environments, wheels, builds.

Each entry is named after a hash of all that it is made from, made in a folder beside and renamed once it is whole, so
that two runs may ask for it at once and a killed one leaves nothing that is taken for whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "RACKSERVE_TEST_CACHE"
# Of one kind; one that was used lately may be in use.
KEPT = 2
LATELY = 3 * 3600.0


def cache_folder() -> Path:
    """Where entries are: RACKSERVE_TEST_CACHE, else root's in /var/cache/rackserve/tests and a user's in ~/.cache."""
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/rackserve/tests")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rackserve" / "tests"


def cached(kind: str, inputs: Sequence[Path | str], make: Callable[[Path], None]) -> Path:
    """The folder of an entry, whole; `make` fills it where there is none. Nobody changes it afterwards.

    kind: names the sort of entry. inputs: everything it is made from, files and words. make: is given an empty folder,
    which is moved once it returns.
    """
    place = cache_folder() / kind
    place.mkdir(parents=True, exist_ok=True)
    entry = place / _key(inputs)
    with _locked(place / f"{entry.name}.lock"):
        if not entry.exists():
            making = place / f"{entry.name}.making"
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            make(making)
            making.rename(entry)
        os.utime(entry)
    _prune(place)
    return entry


def _key(inputs: Sequence[Path | str]) -> str:
    digest = hashlib.sha256()
    for value in inputs:
        content = value.read_bytes() if isinstance(value, Path) else value.encode()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock; whether it could be had. The kernel frees it with the process."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def _prune(place: Path) -> None:
    """Remove entries that nothing has used lately, but for the newest; and what killed runs were making."""
    entries = [path for path in place.iterdir() if path.is_dir() and path.suffix != ".making"]
    newest = sorted(entries, key=lambda path: -path.stat().st_mtime)
    for path in newest[KEPT:]:
        with _locked(place / f"{path.name}.lock", wait=False) as mine:
            if mine and path.exists() and time.time() - path.stat().st_mtime > LATELY:
                making = path.with_name(f"{path.name}.making")
                shutil.rmtree(making, ignore_errors=True)
                # At once: half of an entry would be taken for a whole one.
                path.rename(making)
    for path in place.glob("*.making"):
        with _locked(place / f"{path.stem}.lock", wait=False) as mine:
            if mine:
                shutil.rmtree(path, ignore_errors=True)
