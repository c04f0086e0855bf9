"""Throwaway hosts for tests: labs of its own for each module, gone afterwards whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import pytest

from rackserve.domain.errors import LabError
from rackserve.lab.lab import Lab
from rackserve.lab.shell import require_machine
from tests.lab.left_over import remove_left_over

LabFactory = Callable[[str], Lab]


@pytest.fixture(scope="session")
def _machine() -> None:
    """Skip where the machine carries no lab; take down what killed runs have left."""
    try:
        require_machine()
    except LabError as error:
        pytest.skip(str(error))
    remove_left_over()


@contextmanager
def _making() -> Iterator[LabFactory]:
    """Makes labs whose names no other test run has; each is taken down at the end, also after Ctrl-C and SIGTERM."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    with ExitStack() as cleanup:

        def make(purpose: str) -> Lab:
            lab = Lab(f"test-{purpose}-{os.getpid()}")
            cleanup.callback(lab.down)
            return lab

        yield make


def _as_interrupt(number: int, _: FrameType | None) -> None:
    """End the run as Ctrl-C does, once: a second signal would break the cleaning up off."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def lab_factory(_machine: None) -> Iterator[LabFactory]:
    """For labs of one module. They go with it: each host takes six of the kernel's 128 inotify instances of root."""
    with _making() as make:
        yield make


@pytest.fixture(scope="module")
def lab(lab_factory: LabFactory) -> Lab:
    """Two Debian 12 hosts, h1 and h2, up and bare. Shared by a module: leave them usable."""
    made = lab_factory("shared")
    made.up(2, "bookworm")
    return made


@pytest.fixture
def depot_file(lab: Lab) -> Iterator[Callable[[str, bytes], str]]:
    """Puts a file into the lab's depot and returns its URL."""
    folder = lab.depot_dir / "tests"
    folder.mkdir()

    def put(name: str, content: bytes) -> str:
        (folder / name).write_bytes(content)
        return f"{lab.depot_url}/tests/{name}"

    yield put
    shutil.rmtree(folder)
