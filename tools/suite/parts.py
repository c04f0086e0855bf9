"""The parts of `make test-all`: jobs divided by their recorded seconds, and the results that are kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.suite.jobs import Job, Lane
from tools.suite.results import Result

# What a job may take that nobody has timed yet.
UNKNOWN = 300.0
LONGEST_PART = 45 * 60.0
WALL = "wall"


def estimate(jobs: Sequence[Job], seconds: Mapping[str, float], lanes: int) -> float:
    """How long a part takes: labs beside each other, and beside them what computes, one after another.

    Jobs with virtual machines are never beside each other.
    """
    took = {job.name: seconds.get(job.name, UNKNOWN) for job in jobs}
    labs = [took[job.name] for job in jobs if job.lane is Lane.LAB]
    others = [took[job.name] for job in jobs if job.lane is Lane.CPU]
    machines = [took[job.name] for job in jobs if job.machines]
    return max([sum(labs) / lanes, sum(others), sum(machines), *took.values(), 0.0])


def divide(jobs: Sequence[Job], seconds: Mapping[str, float], count: int, lanes: int) -> list[list[Job]]:
    """The jobs in `count` parts of about the same length: the longest first, each to where it then ends earliest."""
    parts: list[list[Job]] = [[] for _ in range(count)]
    for job in sorted(jobs, key=lambda one: (-seconds.get(one.name, UNKNOWN), one.name)):
        least = min(parts, key=lambda part: (estimate([*part, job], seconds, lanes), _sum(part, seconds)))
        least.append(job)
    return parts


def _sum(part: Sequence[Job], seconds: Mapping[str, float]) -> float:
    return sum(seconds.get(job.name, UNKNOWN) for job in part)


@dataclass(frozen=True, slots=True)
class Kept:
    """The results of one state of the code. folder: build/test-all/CODE."""

    folder: Path

    def put(self, result: Result, part: str) -> None:
        """Keep a job's, in place of an earlier one."""
        path = self._path(result.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(asdict(result) | {"part": part}), encoding="utf-8")
        beside.rename(path)

    def get(self, name: str) -> tuple[Result, str] | None:
        """A job's result and the part that it was run in."""
        path = self._path(name)
        if not path.exists():
            return None
        entry = json.loads(path.read_text(encoding="utf-8"))
        part = entry.pop("part")
        return Result(**entry), part

    def clear(self) -> None:
        """Forget all of them."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def add_wall(self, part: str, seconds: float) -> None:
        """A part was run for so long; it may be run in several goes. A file for each: other machines add theirs."""
        path = self.folder / WALL / f"{part.replace('/', '-')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"part": part, "seconds": self.wall().get(part, 0.0) + seconds}), encoding="utf-8")

    def wall(self) -> dict[str, float]:
        """Seconds of each part, as a clock on the wall has them."""
        entries = [json.loads(path.read_text(encoding="utf-8")) for path in (self.folder / WALL).glob("*.json")]
        return {entry["part"]: entry["seconds"] for entry in entries}

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def report(jobs: Sequence[Job], kept: Kept) -> tuple[str, list[str]]:
    """Every job's result for this code, and a sentence for each that is missing or failed."""
    rows, problems = [], []
    seconds: dict[str, float] = {}
    for job in jobs:
        found = kept.get(job.name)
        if found is None:
            problems.append(f"{job.name}: not run for this code")
            continue
        result, part = found
        seconds[part] = seconds.get(part, 0.0) + result.seconds
        if not result.good:
            problems.append(f"{job.name}: {result.words}")
        rows.append(f"{part:>6}  {result.name:36} {result.seconds:6.0f} s  {result.words}")
    for part, wall in sorted(kept.wall().items()):
        rows.append(f"part {part}: {wall / 60:.1f} minutes, in which {seconds.get(part, 0.0) / 60:.1f} minutes of jobs")
    return "\n".join(rows), problems
