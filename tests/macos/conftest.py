"""A Mac for each test, bare or with one planned service on it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rackserve.planning.plans import HostPlan
from rackserve.rendering import host_files
from tests.macos.mac import Mac
from tests.macos.planning import host_plan_of

KEY = 'sk-"quoted"\\and$HOME'


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Mac]:
    """A Mac on which nothing of ours is."""
    made = Mac(tmp_path)
    yield made
    made.end()


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def planned(port: int) -> HostPlan:
    return host_plan_of({"port": port})


@pytest.fixture
def mac(bare: Mac, planned: HostPlan) -> Mac:
    """One with a service whose files, key, account and program are in place, and that nothing runs yet."""
    bare.put(*host_files(planned))
    bare.put_account("_rackserve-chat")
    bare.put_server()
    key = bare.path("/etc/rackserve/credentials/chat/api-key")
    key.parent.mkdir(parents=True)
    key.write_text(f"{KEY}\n")
    return bare
