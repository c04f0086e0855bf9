"""What became of a job, read from what its process left behind; and the one line that a run ends with."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tools.suite.jobs import Job

PYTEST_FAILED, PYTEST_NO_TESTS = 1, 5
# How the reason of a skip begins where a machine gives nothing to ask.
DOES_NOT_ARISE = "does not arise here: "


@dataclass(frozen=True, slots=True)
class Result:
    """One job's. problem: what went wrong beside failed tests, in one sentence. idle: the markers left no test."""

    name: str
    seconds: float
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    problem: str = ""
    idle: bool = False

    @property
    def good(self) -> bool:
        """Whether nothing of it failed."""
        return not self.failed and not self.problem

    @property
    def words(self) -> str:
        """For the line of this job."""
        counts = ((self.passed, "passed"), (self.failed, "failed"), (self.skipped, "skipped"))
        said = ", ".join(f"{count} {what}" for count, what in counts if count)
        done = "its markers leave all of it out" if self.idle else "done"
        return "; ".join(word for word in (said, self.problem) if word) or done


def judge(job: Job, seconds: float, code: int, lines: str = "") -> Result:
    """What a job that came to an end by itself has to show. code: its process's. lines: as the recorder wrote them."""
    if not job.tests:
        return Result(job.name, seconds, problem=f"exit code {code}" if code else "")
    entries = [json.loads(line) for line in lines.splitlines()]
    tests = [entry for entry in entries if "outcome" in entry]
    ends = [entry for entry in entries if "ended" in entry]
    count = {what: sum(entry["outcome"] == what for entry in tests) for what in ("passed", "failed", "skipped")}
    deselected, unmarked = (ends[0]["deselected"], ends[0]["unmarked"]) if ends else (0, 0)
    idle = code == PYTEST_NO_TESTS and not tests and deselected > 0
    problem = ""
    if not ends or code not in (0, PYTEST_FAILED, PYTEST_NO_TESTS):
        problem = f"pytest did not come to its end: exit code {code}"
    elif unmarked:
        problem = f"{unmarked} left out otherwise than by markers"
    elif not tests and not idle:
        problem = "no tests were found"
    elif tests and all(entry["outcome"] == "skipped" for entry in tests) and not _nothing_to_ask(tests):
        problem = f"everything was skipped: {tests[0]['why']}"
    elif code != 0 and not count["failed"] and not idle:
        problem = f"exit code {code}"
    return Result(job.name, seconds, **count, problem=problem, idle=idle)


def _nothing_to_ask(tests: Iterable[dict[str, str]]) -> bool:
    return all(DOES_NOT_ARISE in entry["why"] for entry in tests)


def closing_line(results: Iterable[Result]) -> str:
    """The last line of a run. A job that failed otherwise than by its tests counts as one failure."""
    every = list(results)
    failed = sum(result.failed + bool(result.problem) for result in every)
    return (
        f"{sum(result.passed for result in every)} passed, {failed} failed, "
        f"{sum(result.skipped for result in every)} skipped"
    )


def closing_code(results: Iterable[Result]) -> int:
    """0 where everything passed, and there was something to pass."""
    every = list(results)
    return 0 if all(result.good for result in every) and any(result.passed for result in every) else 1


def read_lines(path: Path) -> str:
    """What the recorder wrote, without a last line that a killed process did not finish."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    return text[: text.rfind("\n") + 1]
