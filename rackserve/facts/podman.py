"""podman and the container images that it has."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase

# Images that rackserve has pulled, the newest last, one to a line: what is not in it is somebody else's.
OWN_IMAGES = "/var/lib/rackserve/images"


@dataclass(frozen=True, slots=True)
class PodmanState:
    """commands: of those asked for, the ones that are there. images: likewise, by their full names with digests.

    own: images that rackserve has pulled and not removed since.
    """

    commands: frozenset[str]
    images: frozenset[str]
    own: tuple[str, ...]


def parse_podman(lines: Iterable[str]) -> PodmanState:
    """Parse `key=value` lines; keys repeat."""
    values: dict[str, list[str]] = {}
    for line in lines:
        key, separator, value = line.strip().partition("=")
        if separator and value:
            values.setdefault(key, []).append(value)
    return PodmanState(
        commands=frozenset(values.get("command", [])),
        images=frozenset(values.get("image", [])),
        own=tuple(values.get("own", [])),
    )


class Podman(FactBase[PodmanState]):
    """PodmanState of a host."""

    def command(self, commands: list[str], images: list[str]) -> str:
        """Shell that looks for programs, and asks podman for each image."""
        programs = " ".join(shlex.quote(name) for name in commands)
        names = " ".join(shlex.quote(name) for name in images)
        return (
            f'for name in {programs}; do command -v "$name" >/dev/null 2>&1 && echo "command=$name"; done; '
            f'for name in {names}; do podman image exists "$name" 2>/dev/null && echo "image=$name"; done; '
            f"sed 's/^/own=/' {OWN_IMAGES} 2>/dev/null; true"
        )

    @staticmethod
    def default() -> PodmanState:
        """Nothing there."""
        return parse_podman(())

    def process(self, output: list[str]) -> PodmanState:
        """Parse."""
        return parse_podman(output)
