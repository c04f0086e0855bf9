"""Files that a host fetches by itself, verified before they have their final name."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from rackserve.facts.paths import PathStates
from rackserve.keys import read_hub_token
from rackserve.operations import commands


@operation()
def verified_file(
    url: str, sha256: str, size_bytes: int, destination: str, *, hub: str, token_file: str | None = None
) -> Generator[StringCommand, None, None]:
    """Have the file with this checksum at `destination`. An interrupted download goes on where it stopped.

    What is in place was verified before it got there, so a second run compares its size only: hashing 100 GB of weights
    takes minutes. `rackserve verify` reads them again. token_file: the operator's, with a token of `hub`.
    """
    state = host.get_fact(PathStates, paths=[destination], hash_content=False).get(destination)
    if state is not None and state.size == size_bytes:
        host.noop(f"{destination} in place")
        return
    token = hub_token(url, hub, token_file)
    yield commands.script("fetch.sh", url, sha256, str(size_bytes), destination, token=token)


def hub_token(url: str, hub: str, token_file: str | None) -> str:
    """What is sent along to an address: the token for those on the hub, nothing to any other."""
    return read_hub_token(token_file) if token_file and url.startswith(f"{hub.rstrip('/')}/") else ""
