"""What tests keep outside the checkout: made once, whole, by one at a time, and not for ever."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.suite import cache
from tools.suite.cache import cache_folder, cached

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RACKSERVE_TEST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(text: str):
    return lambda place: (place / "made").write_text(text)


def age(entry: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(entry, (then, then))


def test_it_is_made_once_for_each_state_of_its_inputs(tmp_path):
    pins = tmp_path / "pins.txt"
    pins.write_text("1")
    first = cached("wheels", (pins, "3.11"), write("first"))
    assert cached("wheels", (pins, "3.11"), write("again")) == first
    assert (first / "made").read_text() == "first"
    pins.write_text("2")
    assert (cached("wheels", (pins, "3.11"), write("second")) / "made").read_text() == "second"
    assert cached("wheels", (pins, "3.12"), write("third")) != first
    assert cached("builds", (pins, "3.11"), write("other")).parent != first.parent


def test_what_was_not_made_to_its_end_is_made_anew():
    def breaks(place: Path) -> None:
        (place / "half").write_text("")
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011  the one above
        cached("wheels", ("1",), breaks)
    entry = cached("wheels", ("1",), write("whole"))
    assert sorted(path.name for path in entry.iterdir()) == ["made"]


def test_two_that_ask_at_once_get_one_entry(tmp_path):
    program = """
import sys, time
from pathlib import Path
from tools.suite.cache import cached
def make(place):
    with open(sys.argv[1], "a") as log: log.write("made\\n")
    time.sleep(1)
    (place / "whole").touch()
entry = cached("wheels", ("1",), make)
assert (entry / "whole").exists()
"""
    runs = [subprocess.Popen([sys.executable, "-c", program, tmp_path / "log"], cwd=ROOT) for _ in range(3)]
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "made\n"


def test_old_entries_go_and_what_was_used_lately_stays():
    entries = [cached("wheels", (str(number),), write("")) for number in range(4)]
    for number, entry in enumerate(entries):
        age(entry, cache.LATELY * 2 - number)
    # The two newest stay, with the one that is asked for among them.
    assert cached("wheels", ("0",), write("")) == entries[0]
    assert [entry.exists() for entry in entries] == [True, False, False, True]
    fresh = [cached("wheels", (f"new {number}",), write("")) for number in range(3)]
    assert [entry.exists() for entry in [entries[0], *fresh]] == [True] * 4


def test_what_killed_runs_were_making_goes_and_what_others_make_stays(folder):
    (folder / "wheels" / "abc.making").mkdir(parents=True)
    (folder / "wheels" / "def.making").mkdir()
    with cache._locked(folder / "wheels" / "def.lock"):
        cached("wheels", ("1",), write(""))
    assert [path.name for path in folder.glob("wheels/*.making")] == ["def.making"]


def test_a_removal_that_is_killed_leaves_no_half_of_an_entry(monkeypatch):
    old = cached("wheels", ("old",), write("whole"))
    (old / "more").touch()
    for number in range(cache.KEPT):
        cached("wheels", (str(number),), write(""))
    age(old, cache.LATELY * 2)

    def killed(path: Path, **_: object) -> None:
        if path.exists():
            next(path.iterdir()).unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            cached("wheels", ("0",), write(""))
    assert not old.exists()
    assert (cached("wheels", ("old",), write("anew")) / "made").read_text() == "anew"


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.delenv("RACKSERVE_TEST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cache_folder() == Path("/var/cache/rackserve/tests")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cache_folder() == tmp_path / "rackserve" / "tests"
