"""Throwaway hosts for tests: a lab of its own per test session, gone afterwards whatever happens."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from rackserve.domain.errors import LabError
from rackserve.lab.lab import Lab
from rackserve.lab.shell import require_machine

LabFactory = Callable[[str], Lab]


@pytest.fixture(scope="session")
def _machine() -> None:
    """Skip where the machine carries no lab; take down what killed runs have left."""
    try:
        require_machine()
    except LabError as error:
        pytest.skip(str(error))
    _remove_left_over()


@contextmanager
def _making() -> Iterator[LabFactory]:
    """Makes labs whose names no other test run has; each is taken down at the end, also after Ctrl-C."""
    with ExitStack() as cleanup:

        def make(purpose: str) -> Lab:
            lab = Lab(f"test-{purpose}-{os.getpid()}")
            cleanup.callback(lab.down)
            return lab

        yield make


@pytest.fixture(scope="module")
def lab_factory(_machine: None) -> Iterator[LabFactory]:
    """For labs of one module. They go with it: each host takes six of the kernel's 128 inotify instances of root."""
    with _making() as make:
        yield make


def _remove_left_over() -> None:
    """Take down the labs of test runs that were killed: their names end in a process that is gone."""
    for folder in Lab("test").names.folder.parent.glob("test-*-*"):
        if not Path("/proc", folder.name.rsplit("-", 1)[1]).exists():
            Lab(folder.name).down()


@pytest.fixture(scope="session")
def lab(_machine: None) -> Iterator[Lab]:
    """Two Debian 12 hosts, h1 and h2, up and bare. Shared by the session: leave them usable."""
    with _making() as make:
        made = make("shared")
        made.up(2, "bookworm")
        yield made


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
