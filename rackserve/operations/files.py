"""Text files of a plan, all in one operation."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence

from pyinfra import host
from pyinfra.api import StringCommand, operation

from rackserve.facts.paths import PathState, PathStates
from rackserve.operations import commands
from rackserve.rendering import RenderedFile


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


def is_as_wanted(file: RenderedFile, state: PathState | None) -> bool:
    """Whether what is there is what is wanted."""
    if state is None or (state.user, state.group, state.mode) != ("root", "root", file.mode):
        return False
    return state.sha256 == hashlib.sha256(file.text.encode()).hexdigest()
