"""What an operation would send to a host whose facts are given."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyinfra.api import StringCommand

from rackserve.operations import release
from tests.operations.hosts import on

SCRIPTS = Path(release.__file__).parent / "scripts"


@dataclass
class FakeHost:
    """A host whose facts are given, and that raises when asked for another one."""

    facts: dict[type, Any]
    name: str = "h1"
    print_prefix: str = "[h1] "
    noops: list[str] = field(default_factory=list)

    def get_fact(self, fact: type, **_: Any) -> Any:
        return self.facts[fact]

    def noop(self, reason: str) -> None:
        self.noops.append(reason)


def commands(operation: Callable[..., Any], facts: dict[type, Any], **arguments: Any) -> list[Any]:
    """What an operation would send; one that sends nothing has to say why."""
    host = FakeHost(facts)
    with on(host):
        sent = list(operation._inner(**arguments))
    assert bool(sent) != bool(host.noops)
    return sent


def script_of(command: StringCommand) -> tuple[str, ...]:
    """Name and arguments of one of our scripts, by the text that travels on standard input."""
    (text,) = command.connector_arguments["_stdin"]
    (name,) = [path.name for path in SCRIPTS.glob("*.sh") if text.endswith(path.read_text())]
    words = command.get_raw_value()
    assert words.startswith("sh -s -- ")
    shown = subprocess.run(
        ["sh", "-c", f"printf '%s\\0' {words.removeprefix('sh -s -- ')}"], capture_output=True, text=True, check=True
    )
    return (name, *shown.stdout.split("\0")[:-1])
