"""The kernel's limit on inotify instances, in a file that stands for it: raised for a run, and put back by the last."""

from __future__ import annotations

import os

import pytest

from tools.suite.inotify import WANTED, room_for_labs


@pytest.fixture
def limit(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (tmp_path / "limit").write_text("128\n")
    return tmp_path / "limit"


def room(limit, lanes=3, say=print):
    return room_for_labs(lanes, say, limit, limit.with_name("lock"))


def test_it_is_raised_and_put_back(limit):
    with room(limit) as lanes:
        assert (lanes, int(limit.read_text())) == (3, WANTED)
    assert int(limit.read_text()) == 128


def test_a_limit_that_is_high_enough_is_left_alone(limit):
    limit.write_text("8192\n")
    with room(limit) as lanes:
        assert (lanes, limit.read_text()) == (3, "8192\n")
    assert limit.read_text() == "8192\n"


def test_the_last_of_two_runs_puts_it_back(limit):
    with room(limit):
        with room(limit):
            pass
        assert int(limit.read_text()) == WANTED
    assert int(limit.read_text()) == 128


def test_what_a_killed_run_left_raised_is_put_back_by_the_next(limit):
    with room(limit):
        left = limit.with_name("lock").read_text()
    limit.write_text(str(WANTED))
    limit.with_name("lock").write_text(left or "128")
    with room(limit):
        assert int(limit.read_text()) == WANTED
    assert int(limit.read_text()) == 128


def test_where_it_cannot_be_raised_fewer_labs_run_at_once(limit, monkeypatch):
    real = type(limit).write_text

    def refused(path, *words, **more):
        if path == limit:
            raise PermissionError(30, "Read-only file system")
        return real(path, *words, **more)

    monkeypatch.setattr(type(limit), "write_text", refused)
    said = []
    with room(limit, say=said.append) as lanes:
        assert lanes == 1
    assert said == [f"{limit} is 128 and cannot be raised (Read-only file system): fewer labs at once"]


def test_what_somebody_has_set_since_stays(limit):
    with room(limit):
        left = limit.with_name("lock").read_text()
    assert left == "128"
    for value in ("8192", "256"):
        # A run was killed, and left both.
        limit.with_name("lock").write_text(left)
        limit.write_text(value)
        with room(limit):
            assert int(limit.read_text()) >= WANTED
        assert int(limit.read_text()) == int(value)


def test_what_somebody_sets_meanwhile_stays(limit):
    with room(limit):
        limit.write_text("4096")
    assert limit.read_text() == "4096"
    with room(limit):
        assert limit.read_text() == "4096"
    assert limit.read_text() == "4096"


def test_who_is_not_root_has_no_labs_and_takes_no_lock(limit, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with room(limit) as lanes:
        assert lanes == 3
    assert limit.read_text() == "128\n"
    assert not limit.with_name("lock").exists()


def test_root_without_the_lock_is_told(limit):
    lock = limit.with_name("no") / "lock"
    with pytest.raises(SystemExit, match=f"{lock}: No such file or directory"), room_for_labs(3, print, limit, lock):
        pass
