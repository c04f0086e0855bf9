"""Package repositories of vendors: their keys by fingerprint, tried alone before apt or dnf gets to see them."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence

from pyinfra import host
from pyinfra.api import StringCommand, operation

from rackserve.facts.repositories import Definition, RepositoryFiles, RepositoryState, comparable
from rackserve.operations import commands
from rackserve.operations.require import refusing
from rackserve.planning.driver_plan import PlannedRepository
from rackserve.rendering.repositories import key_original_path, keyring_path, repository_file

# What the scripts run, and the package of Debian and Ubuntu that brings it; hosts with dnf cannot be without either.
_PROGRAMS = {"gpg": "gpg", "curl": "curl"}


@operation()
def repositories(
    planned: Sequence[PlannedRepository], adopt: bool, lock_timeout: int
) -> Generator[StringCommand, None, None]:
    """Have these repositories with exactly the pinned keys, and nobody else defining the same ones.

    adopt: move aside other definitions of them. lock_timeout: seconds to wait for another package manager, where gpg
    or curl has to be installed first.
    """
    if not planned:
        host.noop("no package repositories planned")
        return
    state = look(planned)
    differing = [entry for entry in planned if not is_as_planned(entry, state)]
    if not differing:
        host.noop(f"{', '.join(entry.name for entry in planned)} as planned")
        return
    problems = refusals(differing, state, adopt=adopt)
    if problems:
        yield from refusing(problems, "")
        return
    missing = [_PROGRAMS[program] for program in state.missing if program in _PROGRAMS]
    if missing and differing[0].format == "deb":
        yield commands.script("packages.sh", str(lock_timeout), "ca-certificates", *missing)
    for entry in differing:
        yield _added(entry, conflicts(entry, state))


def look(planned: Sequence[PlannedRepository]) -> RepositoryState:
    """What the host has of these repositories, and who else defines any."""
    return host.get_fact(
        RepositoryFiles,
        files=[repository_file(entry).path for entry in planned],
        keyrings=[keyring_path(entry) for entry in planned],
        originals=[key_original_path(entry) for entry in planned if entry.key_sha256],
        programs=list(_PROGRAMS),
    )


def refusals(planned: Sequence[PlannedRepository], state: RepositoryState, *, adopt: bool) -> list[str]:
    """What keeps these repositories from the host, as far as that can be told by looking."""
    return [problem for entry in planned for problem in conflict_problems(entry, state, adopt=adopt)]


def is_as_planned(planned: PlannedRepository, state: RepositoryState) -> bool:
    """Whether the file, the key and the absence of other definitions are as wanted."""
    file = repository_file(planned)
    return (
        state.sha256.get(file.path) == hashlib.sha256(file.text.encode()).hexdigest()
        and _key_is_pinned(planned, state)
        and not conflicts(planned, state)
    )


def conflicts(planned: PlannedRepository, state: RepositoryState) -> list[Definition]:
    """Entries of other files for the same place: apt refuses two that differ in their key, dnf takes either."""
    own = repository_file(planned).path
    place = comparable(planned.url)
    return [entry for entry in state.definitions if place in entry.urls and entry.file != own]


def conflict_problems(planned: PlannedRepository, state: RepositoryState, *, adopt: bool) -> Iterator[str]:
    """Why other definitions cannot be dealt with."""
    for entry in conflicts(planned, state):
        if not adopt:
            yield (
                f"{entry.file} defines the repository {planned.url} as well, and two definitions contradict "
                "each other: remove it, or set adopt for rackserve to move it aside"
            )
        elif not entry.alone and not entry.where:
            yield (
                f"{entry.file} defines {planned.url} among other repositories: take its paragraph out, "
                "rackserve does not guess which part to keep"
            )


def _key_is_pinned(planned: PlannedRepository, state: RepositoryState) -> bool:
    if planned.key_sha256 and state.stripped.get(key_original_path(planned)) != planned.key_sha256:
        return False
    # A key that is known by its file's checksum alone has to be there, whatever it is called.
    found = state.fingerprints.get(keyring_path(planned), ())
    return found == tuple(sorted(planned.fingerprints)) if planned.fingerprints else bool(found)


def _added(planned: PlannedRepository, others: Sequence[Definition]) -> StringCommand:
    file = repository_file(planned)
    aside = [word for entry in others for word in (entry.file, "" if entry.alone else entry.where)]
    return commands.script(
        f"repository-{planned.format}.sh",
        planned.url,
        planned.key_url,
        " ".join(planned.fingerprints),
        planned.key_sha256 or "",
        keyring_path(planned),
        file.path,
        file.text,
        *aside,
    )
