"""API keys that the operator keeps in files of their own machine: read, and refused before a host is reached."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rackserve.domain.errors import Problem
from rackserve.domain.host import Host

# Shorter ones are guessed; the limit is that of a sane header.
_SHORTEST, _LONGEST = 8, 512


def read_api_key(path: str) -> str:
    """The key in a file, without its newline. Raises OSError or ValueError saying what is wrong with the file."""
    key = Path(path).read_text(encoding="utf-8").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        msg = "has to hold one key: one line of printable ASCII without blanks"
        raise ValueError(msg)
    if not _SHORTEST <= len(key) <= _LONGEST:
        msg = f"holds {len(key)} characters, a key has {_SHORTEST} to {_LONGEST}"
        raise ValueError(msg)
    if key.startswith("#"):
        msg = "starts with #, which llama-server takes for a comment"
        raise ValueError(msg)
    return key


def key_problems(hosts: Iterable[Host]) -> list[Problem]:
    """What is wrong with the key files that the inventory names; never what is in them."""
    problems = []
    for host in hosts:
        for service in host.services:
            if service.api_key_file is None:
                continue
            try:
                read_api_key(service.api_key_file)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                message = f"{service.api_key_file}: {reason}"
                problems.append(Problem(message, host=host.name, service=service.name, key="api_key_file"))
    return problems
