"""Plugin of pytest: writes what became of each test into the file that RACKSERVE_SUITE_RESULTS names, a line each."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

VARIABLE = "RACKSERVE_SUITE_RESULTS"


class Recorder:
    """Writes each line as soon as its test is over, so that a process which dies has told what it had done."""

    def __init__(self, path: Path, expression: str) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._markers = set(expression.split())
        self._deselected = self._unmarked = 0
        self._seconds: dict[str, float] = {}
        self._outcomes: dict[str, tuple[str, str]] = {}

    def _write(self, entry: dict[str, object]) -> None:
        print(json.dumps(entry), file=self._file, flush=True)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Count what was left out, and what of it has none of the markers that -m names."""
        self._deselected += len(items)
        self._unmarked += sum(not self._markers & {mark.name for mark in item.iter_markers()} for item in items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that cannot be read, or skips itself, has no tests that could tell."""
        if report.failed:
            self._write({"test": report.nodeid, "outcome": "failed", "seconds": 0.0})
        elif report.skipped:
            self._write({"test": report.nodeid, "outcome": "skipped", "seconds": 0.0, "why": _why(report.longrepr)})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test is set up, called and torn down; the worst of the three is its outcome."""
        test = report.nodeid
        self._seconds[test] = self._seconds.get(test, 0.0) + report.duration
        worst = self._outcomes.get(test, ("passed", ""))
        if report.failed or (report.skipped and worst[0] == "passed"):
            worst = (report.outcome, _why(report.longrepr) if report.skipped else "")
        self._outcomes[test] = worst
        if report.when == "teardown":
            outcome, why = self._outcomes.pop(test)
            self._write({"test": test, "outcome": outcome, "seconds": self._seconds.pop(test), "why": why})

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """The last line: it is only there where pytest came to its end."""
        self._write({"ended": int(exitstatus), "deselected": self._deselected, "unmarked": self._unmarked})


def _why(longrepr: object) -> str:
    return str(longrepr[2]) if isinstance(longrepr, tuple) else ""


def pytest_configure(config: pytest.Config) -> None:
    """Record where somebody asks for it."""
    if VARIABLE in os.environ:
        config.pluginmanager.register(Recorder(Path(os.environ[VARIABLE]), config.getoption("markexpr")))
