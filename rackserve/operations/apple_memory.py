"""The share of an Apple machine's memory that its GPU may use."""

from __future__ import annotations

import hashlib
from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from rackserve.facts.wired_limit import WiredLimit
from rackserve.operations import commands


@operation()
def wired_limit(limit_mib: int, label: str, path: str, text: str) -> Generator[StringCommand, None, None]:
    """Have the limit in force, and a launchd job that sets it again at every start."""
    state = host.get_fact(WiredLimit, label=label, path=path)
    digest = hashlib.sha256(text.encode()).hexdigest()
    if state.limit_mib == limit_mib and state.loaded and state.sha256 == digest:
        host.noop(f"the GPU may use {limit_mib} MiB")
        return
    yield commands.script("wired-limit.sh", label, path, str(limit_mib), text)
