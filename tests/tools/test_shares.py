"""Which share of the run each folder and module has, and that one that doubles it is told."""

from __future__ import annotations

import pytest

from tools.suite.jobs import LINT, Job, Lane
from tools.suite.results import Result
from tools.suite.shares import Folder, Recorded, folders, grown, load, merged, save, seconds_of, table

JOBS = [
    *(Job(name, Lane.LAB, tests=("x",)) for name in ("lab/test_a", "lab/test_b", "lab/test_c")),
    Job("cli", Lane.CPU, tests=("y",)),
    LINT,
]
RESULTS = [
    Result("prepare/contract", 500.0),
    Result("lint", 70.0),
    Result("lab/test_a", 60.0, passed=2),
    Result("lab/test_b", 15.0, passed=1, skipped=1),
    Result("cli", 25.0, passed=9),
    Result("lab/test_c", 99.0, idle=True),
]


def test_shares_are_of_the_seconds_of_tests_alone():
    assert folders(JOBS, RESULTS) == [Folder("lab", 4, 75.0, 0.75), Folder("cli", 9, 25.0, 0.25)]


# About a run of this project.
LABS = {f"lab/test_{number}": 47.0 for number in range(40)} | {"lab/test_vllm": 678.0, "lab/test_drivers": 234.0}
OTHERS = {"operations": 114.0, "planning": 68.0, "catalog": 15.0, "contract": 312.0, "cli": 30.0, "libexec": 60.0}
BEFORE = LABS | OTHERS


def times(factor: float, *names: str) -> dict[str, float]:
    return BEFORE | {name: BEFORE[name] * factor for name in names}


def named(sentences: list[str]) -> list[str]:
    return [sentence.split()[0].removeprefix("tests/") for sentence in sentences]


@pytest.mark.parametrize(
    ("took", "told"),
    [
        (BEFORE, []),
        (times(2, *BEFORE), []),
        (times(3, "lab/test_7"), ["lab/test_7"]),
        (times(2.1, "lab/test_vllm"), ["lab/test_vllm"]),
        (times(1.9, "lab/test_vllm"), []),
        (times(2.5, "operations"), ["operations"]),
        (times(3, "planning"), ["planning"]),
        (times(10, "catalog"), ["catalog"]),
        # Small ones come and go with the machine's mood.
        (times(2.9, "catalog"), []),
        # Who has a larger share because others are shorter has done nothing.
        (times(1 / 3, *LABS), []),
        (times(1 / 3, *(name for name in BEFORE if name != "planning")), []),
        # A module that nobody recorded counts with its folder, and a folder from nothing.
        (BEFORE | {"lab/test_new": 300.0}, []),
        (BEFORE | {"lab/test_new": 3000.0}, ["lab"]),
        (BEFORE | {"new": 59.0}, []),
        (BEFORE | {"new": 60.0}, ["new"]),
    ],
)
def test_what_doubles_its_share_is_told(took, told):
    assert named(grown(took, BEFORE)) == told


def test_all_labs_together_may_not_double_either():
    assert "lab" in named(grown(times(2, *LABS), BEFORE))
    renamed = {f"{name}_renamed": took for name, took in LABS.items()}
    assert named(grown({name: 2 * took for name, took in renamed.items()} | OTHERS, BEFORE)) == ["lab"]
    assert grown(renamed | OTHERS, BEFORE) == []


def test_on_a_machine_half_as_fast_shares_are_what_they_were():
    took = {name: 2 * seconds for name, seconds in times(2.5, "operations").items()}
    assert named(grown(took, BEFORE)) == ["operations"]


def test_the_sentence_says_how_much_and_what_to_do():
    (sentence,) = grown({"a": 90.0, "b": 60.0}, {"a": 30.0, "b": 60.0})
    assert sentence.startswith("tests/a took 90 s beside 60 s of all others, and is recorded with 30 s beside 60 s: ")
    assert "make record-shares" in sentence


def test_lint_and_what_was_not_run_are_no_tests():
    assert seconds_of(JOBS, RESULTS) == {"lab/test_a": 60.0, "lab/test_b": 15.0, "cli": 25.0}
    assert Recorded({"test": {"lint": 70.0, "cli": 25.0}}).tests == {"cli": 25.0}


def test_what_is_recorded_is_read_back(tmp_path):
    (tmp_path / "tests").mkdir()
    save(tmp_path, Recorded({"test": {"lab/test_a": 60.0}, "all": {"lab/test_a": 600.0}}))
    recorded = load(tmp_path)
    assert recorded.of("all") == {"lab/test_a": 600}
    assert recorded.of("test") == {"lab/test_a": 60}


def test_the_short_run_stands_in_for_the_long_one():
    recorded = Recorded({"test": {"a": 1.0, "b": 2.0}, "all": {"b": 20.0}})
    assert recorded.of("all") == {"a": 1.0, "b": 20.0}
    assert recorded.of("test") == {"a": 1.0, "b": 2.0}


def test_what_was_not_run_again_stays_recorded_while_there_is_such_a_job():
    before = {"lab/test_a": 1.0, "lab/test_b": 2.0, "lab/test_gone": 3.0}
    assert merged(before, {"lab/test_b": 20.0, "cli": 4.0}, JOBS) == {"lab/test_a": 1.0, "lab/test_b": 20.0, "cli": 4.0}


def test_the_table_has_a_row_for_each_folder():
    rows = table(folders(JOBS, RESULTS), {"lab/test_a": 50.0, "lab/test_b": 20.0, "other": 30.0}).splitlines()
    assert [row.split() for row in rows[1:]] == [
        ["lab", "4", "75", "75.0%", "70.0%"],
        ["cli", "9", "25", "25.0%", "0.0%"],
    ]
