"""Text files of a plan, and links beside them, each kind in one operation."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence

from pyinfra import host
from pyinfra.api import StringCommand, operation

from rackserve.facts.paths import Links, PathState, PathStates
from rackserve.operations import commands
from rackserve.rendering.text import RenderedFile


@operation()
def text_files(files: Sequence[RenderedFile]) -> Generator[StringCommand, None, None]:
    """Have these files, byte for byte, owned by root with their mode."""
    if not files:
        host.noop("no files planned")
        return
    states = host.get_fact(PathStates, paths=[file.path for file in files])
    differing = [file for file in files if not is_as_wanted(file, states.get(file.path))]
    if not differing:
        host.noop(f"{len(files)} files as planned")
        return
    for file in differing:
        yield commands.write_file(file.path, file.text, file.mode)


@operation()
def links(wanted: Sequence[tuple[str, str]]) -> Generator[StringCommand, None, None]:
    """Have these symbolic links, each a path and its target."""
    found = host.get_fact(Links, paths=[path for path, _ in wanted])
    differing = [(path, target) for path, target in wanted if found.get(path) != target]
    if not differing:
        host.noop(f"{len(wanted)} links as planned")
        return
    for path, target in differing:
        yield commands.link(path, target)


def is_as_wanted(file: RenderedFile, state: PathState | None) -> bool:
    """Whether what is there is what is wanted."""
    if state is None or (state.user, state.group, state.mode) != ("root", "root", file.mode):
        return False
    return state.sha256 == hashlib.sha256(file.text.encode()).hexdigest()
