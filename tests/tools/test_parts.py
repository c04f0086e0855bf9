"""`make test-all` in parts: how jobs are divided, and what is reported of them."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.suite.jobs import Job, Lane
from tools.suite.parts import Kept, divide, estimate, report
from tools.suite.results import Result

LANES = 3


def lab(name: str) -> Job:
    return Job(name, Lane.LAB, tests=("x",))


def cpu(name: str) -> Job:
    return Job(name, Lane.CPU, tests=("x",))


def test_labs_go_beside_each_other_and_beside_what_computes():
    seconds = {"a": 300.0, "b": 300.0, "c": 300.0, "d": 400.0}
    labs = [lab(name) for name in "abc"]
    assert estimate(labs, seconds, LANES) == 300
    assert estimate([*labs, cpu("d")], seconds, LANES) == 400
    assert estimate([*labs, lab("d")], seconds, LANES) == pytest.approx(1300 / 3)
    assert estimate([cpu("d"), cpu("a")], seconds, LANES) == 700
    assert estimate([], seconds, LANES) == 0
    machines = [Job(name, Lane.LAB, tests=("x",), needs=frozenset({"vagrant"})) for name in "ab"]
    assert estimate(machines, seconds, LANES) == 600


@given(
    took=st.lists(st.integers(1, 2000), min_size=1, max_size=40),
    count=st.integers(1, 8),
    kinds=st.lists(st.booleans(), min_size=40, max_size=40),
)
def test_each_job_is_in_one_part_and_no_part_is_far_from_the_least(took, count, kinds):
    jobs = [lab(str(number)) if kinds[number] else cpu(str(number)) for number in range(len(took))]
    seconds = {str(number): float(value) for number, value in enumerate(took)}
    parts = divide(jobs, seconds, count, LANES)
    assert len(parts) == count
    assert sorted(job.name for part in parts for job in part) == sorted(seconds)
    assert parts == divide(jobs[::-1], seconds, count, LANES)
    # What a part has beyond another is at most one job, of each kind.
    ends = [estimate(part, seconds, LANES) for part in parts]
    assert max(ends) <= min(ends) + 2 * max(seconds.values())


def test_the_report_is_complete_or_says_what_is_missing_and_what_failed(tmp_path):
    kept = Kept(tmp_path / "kept")
    jobs = [lab("lab/a"), lab("lab/b"), cpu("cli")]
    kept.put(Result("lab/a", 61.0, passed=3), "1/2")
    kept.put(Result("cli", 59.0, passed=3, failed=1), "2/2")
    kept.add_wall("1/2", 90.0)
    kept.add_wall("1/2", 30.0)
    text, problems = report(jobs, kept)
    assert problems == ["lab/b: not run for this code", "cli: 3 passed, 1 failed"]
    assert "part 1/2: 2.0 minutes, in which 1.0 minutes of jobs" in text
    kept.put(Result("cli", 58.0, passed=4), "2/2")
    kept.put(Result("lab/b", 1.0, idle=True), "2/2")
    text, problems = report(jobs, kept)
    assert problems == []
    assert [line.split()[1] for line in text.splitlines()[:3]] == ["lab/a", "lab/b", "cli"]
    assert "its markers leave all of it out" in text


def test_parts_of_several_machines_are_put_together_by_copying(tmp_path):
    for number in ("1", "2"):
        one = Kept(tmp_path / number)
        one.put(Result(f"lab/{number}", 60.0, passed=1), f"{number}/2")
        one.add_wall(f"{number}/2", 60.0)
        shutil.copytree(one.folder, tmp_path / "both", dirs_exist_ok=True)
    text, problems = report([lab("lab/1"), lab("lab/2")], Kept(tmp_path / "both"))
    assert problems == []
    assert [line.partition(":")[0] for line in text.splitlines()[2:]] == ["part 1/2", "part 2/2"]


def test_results_that_are_of_no_code_are_forgotten(tmp_path):
    kept = Kept(tmp_path / "kept")
    kept.put(Result("lab/a", 61.0, passed=3), "1/2")
    assert kept.get("lab/a") == (Result("lab/a", 61.0, passed=3), "1/2")
    kept.clear()
    assert kept.get("lab/a") is None
