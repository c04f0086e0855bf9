"""How long each job takes, as recorded in tests/shares.toml, and which share of the run that is.

Shares are of the sum of all jobs' seconds, not of the time that the run took: so machines and lanes compare.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.suite.jobs import CHOSEN, LINT, Job
from tools.suite.results import Result

FILE = "tests/shares.toml"
# Nobody minds fewer seconds than these, and a machine in another mood makes them: base images that are not there yet.
FLOOR = 60.0
_HEAD = (
    "# Seconds of each job, written by `make record-shares` from the last runs in which everything passed:\n"
    "# docs/testing.md.\n"
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """seconds: of each job, by kind of run and name."""

    seconds: Mapping[str, Mapping[str, float]]

    def of(self, kind: str) -> Mapping[str, float]:
        """Seconds of the jobs of a kind of run; those of `make test` stand in where `make test-all` has none yet."""
        return {**self.seconds.get("test", {}), **self.seconds.get(kind, {})}

    @property
    def tests(self) -> Mapping[str, float]:
        """Seconds of the tests of `make test`."""
        return {name: took for name, took in self.seconds.get("test", {}).items() if name != LINT.name}


def merged(before: Mapping[str, float], found: Mapping[str, float], jobs: Sequence[Job]) -> dict[str, float]:
    """What is to be recorded after a run of some jobs: what was found, and what was known of the others that exist."""
    return {**{job.name: before[job.name] for job in jobs if job.name in before}, **found}


def load(root: Path) -> Recorded:
    """What is recorded."""
    tables = tomllib.loads((root / FILE).read_text(encoding="utf-8"))
    return Recorded(tables["seconds"])


def save(root: Path, recorded: Recorded) -> None:
    """Write it anew."""
    text = _HEAD
    for kind in CHOSEN:
        numbers = recorded.seconds.get(kind, {})
        text += f"\n[seconds.{kind}]\n" + "".join(f'"{key}" = {numbers[key]:.0f}\n' for key in sorted(numbers))
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


def seconds_of(jobs: Sequence[Job], results: Sequence[Result]) -> dict[str, float]:
    """What the jobs that have tests took, by name."""
    tests = {job.name for job in jobs if job.tests}
    return {result.name: result.seconds for result in results if result.name in tests and not result.idle}


def grown(took: Mapping[str, float], recorded: Mapping[str, float]) -> list[str]:
    """A sentence for each folder, and each job that is a module, whose share of the others' seconds has doubled.

    took, recorded: seconds by job. A module that is not recorded counts with its folder, a folder from nothing.
    """
    every = {name.partition("/")[0] for name in took} | (took.keys() & recorded.keys())
    sentences = []
    for name in sorted(every):
        now, rest = _split(took, name)
        before, rest_before = _split(recorded, name)
        if now >= before + FLOOR and now * rest_before >= 2 * before * rest:
            sentences.append(
                f"tests/{name} took {now:.0f} s beside {rest:.0f} s of all others, and is recorded with {before:.0f} s"
                f" beside {rest_before:.0f} s: shorten its tests, move long ones to `make test-all` (marker full), or"
                " record the new share: make record-shares"
            )
    return sentences


def _split(seconds: Mapping[str, float], name: str) -> tuple[float, float]:
    """Seconds of a job or folder, and of all others."""
    mine = sum(took for job, took in seconds.items() if job == name or job.startswith(f"{name}/"))
    return mine, sum(seconds.values()) - mine


def table(found: Sequence[Folder], recorded: Mapping[str, float]) -> str:
    """For the end of a run. recorded: seconds by job."""
    total = sum(recorded.values()) or 1.0
    rows = [f"{'folder':14} {'tests':>6} {'seconds':>8} {'share':>6} {'recorded':>9}"]
    rows += [
        f"{one.name:14} {one.tests:6} {one.seconds:8.0f} {one.share:6.1%} {_split(recorded, one.name)[0] / total:9.1%}"
        for one in found
    ]
    return "\n".join(rows)
