"""What is wrong with a table of options beyond the shape of its entries, and how a file's table joins ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from packaging.version import Version

from rackserve.domain.errors import Problem
from rackserve.domain.option import OptionTable, Spelling


def release(version: str) -> Version:
    """What versions are compared by: a candidate, a rebuild or a local build has the options of its release."""
    return Version(Version(version).base_version)


def reaches(spelling: Spelling, version: Version) -> bool:
    """Whether the version is told so."""
    started = spelling.since is None or release(spelling.since) <= version
    return started and (spelling.before is None or version < release(spelling.before))


def table_problems(entry: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """Bounds that hold nothing, and two names for one setting in the same version. `entry` has a table's shape."""
    table = OptionTable.model_validate(entry)
    key = f"options.{table.runtime}"
    if release(table.oldest) > release(table.newest):
        yield Problem(f"oldest {table.oldest} is newer than newest {table.newest}", where=where, key=key)
    for setting, spellings in table.settings.items():
        place = f"{key}.settings.{setting}"
        for spelling in spellings:
            if spelling.since and spelling.before and release(spelling.since) >= release(spelling.before):
                message = f"{_named(spelling)} is in no version: since {spelling.since}, before {spelling.before}"
                yield Problem(message, where=where, key=place)
        for one, other in combinations(spellings, 2):
            if _overlap(one, other):
                message = f"{_named(one)} and {_named(other)} are in the same versions: bound one by `before`"
                yield Problem(message, where=where, key=place)


def joined(ours: Mapping[str, Any] | None, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """A later file's table over an earlier one's: its bounds, and its settings in place of those of the same name."""
    if ours is None:
        return dict(theirs)
    return {**ours, **theirs, "settings": {**ours["settings"], **theirs["settings"]}}


def _overlap(one: Spelling, other: Spelling) -> bool:
    starts = [release(spelling.since) if spelling.since else Version("0") for spelling in (one, other)]
    latest = max(starts)
    return all(spelling.before is None or latest < release(spelling.before) for spelling in (one, other))


def _named(spelling: Spelling) -> str:
    return spelling.name or f"kind {spelling.kind}"
