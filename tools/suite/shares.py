"""How long each job takes and which share of the run each folder has, as recorded in tests/shares.toml.

Shares are of the sum of all jobs' seconds, not of the time that the run took: so machines and lanes compare.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.suite.jobs import CHOSEN, Job
from tools.suite.results import Result

FILE = "tests/shares.toml"
# A folder may have this much more of the run than it is recorded with before a doubling counts: five in a hundred.
FLOOR = 0.05
_HEAD = (
    "# Written by `make record-shares` from the last `make test` and `make test-all` that passed: docs/testing.md.\n"
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """shares: of `make test`, by folder, from 0 to 1. seconds: of each job, by kind of run and name."""

    shares: Mapping[str, float]
    seconds: Mapping[str, Mapping[str, float]]

    def of(self, kind: str) -> Mapping[str, float]:
        """Seconds of the jobs of a kind of run; those of `make test` stand in where `make test-all` has none yet."""
        return {**self.seconds.get("test", {}), **self.seconds.get(kind, {})}


def load(root: Path) -> Recorded:
    """What is recorded."""
    tables = tomllib.loads((root / FILE).read_text(encoding="utf-8"))
    return Recorded(tables["share"], tables["seconds"])


def save(root: Path, recorded: Recorded) -> None:
    """Write it anew."""
    tables = {"share": (recorded.shares, ".4f")}
    tables |= {f"seconds.{kind}": (recorded.seconds.get(kind, {}), ".0f") for kind in CHOSEN}
    text = _HEAD
    for name, (numbers, form) in tables.items():
        text += f"\n[{name}]\n" + "".join(f'"{key}" = {numbers[key]:{form}}\n' for key in sorted(numbers))
    (root / FILE).write_text(text, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Folder:
    """One folder of tests in a run."""

    name: str
    tests: int
    seconds: float
    share: float


def folders(jobs: Sequence[Job], results: Sequence[Result]) -> list[Folder]:
    """The folders that have tests, those first that take longest."""
    named = {job.name: job.folder for job in jobs if job.tests}
    of_tests = [result for result in results if result.name in named and not result.idle]
    total = sum(result.seconds for result in of_tests)
    found = []
    for name in set(named.values()):
        mine = [result for result in of_tests if named[result.name] == name]
        seconds = sum(result.seconds for result in mine)
        tests = sum(result.passed + result.failed + result.skipped for result in mine)
        found.append(Folder(name, tests, seconds, seconds / total if total else 0.0))
    return sorted(found, key=lambda folder: -folder.seconds)


def grown(found: Sequence[Folder], shares: Mapping[str, float]) -> list[str]:
    """A sentence for each folder that has doubled its share."""
    return [
        f"tests/{folder.name} takes {folder.share:.1%} of the run and is recorded with {before:.1%}: shorten its tests,"
        f" move long ones to `make test-all` (marker full), or record the new share: make record-shares"
        for folder in found
        for before in (shares.get(folder.name, 0.0),)
        if folder.share > 2 * before and folder.share > before + FLOOR
    ]


def table(found: Sequence[Folder], shares: Mapping[str, float]) -> str:
    """For the end of a run."""
    rows = [f"{'folder':14} {'tests':>6} {'seconds':>8} {'share':>6} {'recorded':>9}"]
    rows += [
        f"{one.name:14} {one.tests:6} {one.seconds:8.0f} {one.share:6.1%} {shares.get(one.name, 0.0):9.1%}"
        for one in found
    ]
    return "\n".join(rows)
