"""What a job's process leaves behind, and what the run says of it at its end."""

from __future__ import annotations

import json

import pytest

from tools.suite.jobs import Job, Lane
from tools.suite.results import Result, closing_code, closing_line, judge, read_lines

JOB = Job("lab/test_a", Lane.LAB, tests=("tests/lab/test_a.py",))


def lines(*outcomes: str, ended: int | None = 0, deselected: int = 0, unmarked: int = 0, why: str = "no gcc") -> str:
    entries: list[dict[str, object]] = [
        {"test": str(number), "outcome": outcome, "seconds": 1.0, "why": why} for number, outcome in enumerate(outcomes)
    ]
    entries += [] if ended is None else [{"ended": ended, "deselected": deselected, "unmarked": unmarked}]
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def test_all_passed():
    result = judge(JOB, 2.0, 0, lines("passed", "passed", "skipped"))
    assert (result.passed, result.failed, result.skipped, result.problem) == (2, 0, 1, "")
    assert result.good
    assert result.words == "2 passed, 1 skipped"


@pytest.mark.parametrize(
    ("code", "text", "problem"),
    [
        (1, lines("passed", "failed", ended=1), ""),
        (-9, lines("passed", ended=None), "pytest did not come to its end: exit code -9"),
        (0, lines("passed", ended=None), "pytest did not come to its end: exit code 0"),
        (0, "", "pytest did not come to its end: exit code 0"),
        (2, lines("passed", ended=2), "pytest did not come to its end: exit code 2"),
        (5, lines(ended=5), "no tests were found"),
        (0, lines(), "no tests were found"),
        (0, lines("skipped", "skipped"), "everything was skipped: no gcc"),
        (1, lines("passed", ended=1), "exit code 1"),
        (5, lines(ended=5, deselected=3, unmarked=2), "2 left out otherwise than by markers"),
        (0, lines("passed", deselected=1, unmarked=1), "1 left out otherwise than by markers"),
    ],
)
def test_what_is_a_failure(code, text, problem):
    result = judge(JOB, 2.0, code, text)
    assert result.problem == problem
    assert not result.good
    assert closing_code([Result("b", 1.0, passed=1), result]) == 1


def test_a_module_that_the_markers_leave_out_is_no_failure():
    result = judge(JOB, 2.0, 5, lines(ended=5, deselected=3))
    assert result.good
    assert result.idle
    assert result.words == "its markers leave all of it out"


def test_a_module_that_has_nothing_to_ask_here_is_no_failure():
    nothing = lines("skipped", "skipped", why="Skipped: does not arise here: libvirt runs by itself")
    result = judge(JOB, 2.0, 0, nothing)
    assert (result.good, result.words) == (True, "2 skipped")
    beside = lines("skipped", ended=None)
    assert judge(JOB, 2.0, 0, beside + nothing).problem == "everything was skipped: no gcc"


@pytest.mark.parametrize(("code", "good"), [(0, True), (2, False)])
def test_a_command_is_judged_by_its_exit_code(code, good):
    result = judge(Job("lint", Lane.CPU, command=("make", "lint")), 2.0, code)
    assert result.good is good
    assert (result.problem == "exit code 2") is not good


def test_the_closing_line_counts_a_job_that_crashed_as_a_failure():
    results = [Result("a", 1.0, passed=5, skipped=1), Result("b", 1.0, passed=2, failed=3, problem="exit code -9")]
    assert closing_line(results) == "7 passed, 4 failed, 1 skipped"
    assert closing_line([Result("a", 1.0, passed=2)]) == "2 passed, 0 failed, 0 skipped"


def test_nothing_passed_is_no_success():
    assert closing_code([]) == 1
    assert closing_code([Result("lint", 1.0)]) == 1
    assert closing_code([Result("lint", 1.0), Result("a", 1.0, passed=1)]) == 0


def test_a_line_that_a_killed_process_did_not_finish_is_left_out(tmp_path):
    path = tmp_path / "a.jsonl"
    assert read_lines(path) == ""
    path.write_text(lines("passed") + '{"test": "b", "out')
    assert read_lines(path) == lines("passed")
