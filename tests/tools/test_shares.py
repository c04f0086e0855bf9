"""Which share of the run each folder has, and that one that doubles it is told."""

from __future__ import annotations

import pytest

from tools.suite.jobs import LINT, Job, Lane
from tools.suite.results import Result
from tools.suite.shares import FLOOR, Folder, Recorded, folders, grown, load, save, table

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


@pytest.mark.parametrize(
    ("before", "share", "told"),
    [
        (0.10, 0.20, False),
        (0.10, 0.201, True),
        # Small folders come and go with the machine's mood.
        (0.01, 0.01 + FLOOR, False),
        (0.01, 0.011 + FLOOR, True),
        (0.0, FLOOR + 0.001, True),
    ],
)
def test_a_folder_that_doubles_its_share_is_told(before, share, told):
    found = grown([Folder("cli", 9, 25.0, share)], {"cli": before})
    assert bool(found) is told
    if told:
        assert found[0].startswith(f"tests/cli takes {share:.1%} of the run and is recorded with {before:.1%}")
        assert "make record-shares" in found[0]


def test_a_folder_that_nobody_recorded_counts_from_nothing():
    assert len(grown([Folder("new", 9, 25.0, 0.3)], {})) == 1


def test_what_is_recorded_is_read_back(tmp_path):
    (tmp_path / "tests").mkdir()
    save(tmp_path, Recorded({"lab": 0.75, "cli": 0.25}, {"test": {"lab/test_a": 60.0}, "all": {"lab/test_a": 600.0}}))
    recorded = load(tmp_path)
    assert recorded.shares == {"lab": 0.75, "cli": 0.25}
    assert recorded.of("all") == {"lab/test_a": 600}
    assert recorded.of("test") == {"lab/test_a": 60}


def test_the_short_run_stands_in_for_the_long_one():
    recorded = Recorded({}, {"test": {"a": 1.0, "b": 2.0}, "all": {"b": 20.0}})
    assert recorded.of("all") == {"a": 1.0, "b": 20.0}
    assert recorded.of("test") == {"a": 1.0, "b": 2.0}


def test_the_table_has_a_row_for_each_folder():
    rows = table(folders(JOBS, RESULTS), {"lab": 0.7}).splitlines()
    assert [row.split() for row in rows[1:]] == [
        ["lab", "4", "75", "75.0%", "70.0%"],
        ["cli", "9", "25", "25.0%", "0.0%"],
    ]
