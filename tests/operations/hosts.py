"""Run an operation's generator on a host that the test made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyinfra.context import ctx_host


@contextmanager
def on(host: Any) -> Iterator[None]:
    """Make `host` the one that operations see."""
    before = ctx_host.get()
    ctx_host.set(host)
    try:
        yield
    finally:
        ctx_host.set(before)
