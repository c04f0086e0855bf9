"""Keys and tokens that the operator keeps in files of their own machine: read, and refused before a host is reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from rackserve.domain.errors import Problem
from rackserve.domain.host import Host

# Shorter ones are guessed; the limit is that of a sane header, which tokens of a company's mirror may come near to.
_SHORTEST, _LONGEST, _LONGEST_TOKEN = 8, 512, 4096


def read_api_key(path: str) -> str:
    """The key in a file, without its newline. Raises OSError or ValueError saying what is wrong with the file."""
    key = _one_line(path, "key", _LONGEST)
    if key.startswith("#"):
        msg = "starts with #, which llama-server takes for a comment"
        raise ValueError(msg)
    return key


def read_hub_token(path: str) -> str:
    """The model hub's token in a file, without its newline. Raises OSError or ValueError like `read_api_key`."""
    return _one_line(path, "token", _LONGEST_TOKEN)


def _one_line(path: str, what: str, longest: int) -> str:
    secret = Path(path).read_text(encoding="utf-8").strip()
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        msg = f"has to hold one {what}: one line of printable ASCII without blanks"
        raise ValueError(msg)
    if not _SHORTEST <= len(secret) <= longest:
        msg = f"holds {len(secret)} characters, a {what} has {_SHORTEST} to {longest}"
        raise ValueError(msg)
    return secret


def key_problems(hosts: Iterable[Host]) -> list[Problem]:
    """What is wrong with the files of keys and tokens that the inventory names; never what is in them."""
    problems = []
    for host in hosts:
        if host.hf_token_file is not None:
            problems += _problems(read_hub_token, host.hf_token_file, host=host.name, key="hf_token_file")
        for service in host.services:
            if service.api_key_file is not None:
                where = {"host": host.name, "service": service.name, "key": "api_key_file"}
                problems += _problems(read_api_key, service.api_key_file, **where)
    return problems


def _problems(read: Callable[[str], str], path: str, **where: str) -> list[Problem]:
    try:
        read(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return [Problem(f"{path}: {reason}", **where)]
    return []
