"""Real pytest processes in lanes: what is said of them, and that all of them end with the run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.suite import process
from tools.suite.jobs import Job, Lane
from tools.suite.process import Process
from tools.suite.results import Result
from tools.suite.running import Run, show_failures
from tools.suite.schedule import Room

ROOT = Path(__file__).resolve().parents[2]
# A test that tells when it runs, and how it was ended.
WAITS = """
import pathlib, time, pytest

@pytest.fixture
def made():
    here = pathlib.Path(__file__).with_suffix("")
    here.with_suffix(".up").touch()
    yield
    here.with_suffix(".down").touch()

def test_waits(made):
    time.sleep(600)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """In a checkout of its own, with the runner of this one."""
    # Those of this project take longer to load than these tests take.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "--import-mode=importlib"\n')
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    (tmp_path / "tests").mkdir()
    return Run(tmp_path, "all", tmp_path / "logs", Room(3, 2), limit=300)


def job(run: Run, name: str, text: str, **settings: object) -> Job:
    (run.root / f"tests/test_{name}.py").write_text(text)
    return Job(f"lab/{name}", Lane.LAB, tests=(f"tests/test_{name}.py",), **settings)


def until(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"no {path.name}"
        time.sleep(0.05)


def over(one: Process) -> Result:
    end = time.monotonic() + 60
    while (result := one.poll()) is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    return result


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_each_job_is_told_in_a_line_and_the_failed_in_full(run, capfd):
    good = job(run, "good", "def test_a(): pass\ndef test_b(): pass\n")
    bad = job(run, "bad", "def test_a(): pass\ndef test_b(): assert 'this' == 'that'\n")
    results = run.do([good, bad])
    assert {result.name: (result.passed, result.failed) for result in results} == {
        "lab/good": (2, 0),
        "lab/bad": (1, 1),
    }
    show_failures(results, run.folder)
    said = capfd.readouterr().out
    assert re.search(r"^ +0:\d\d  lab/good +\d+ s  2 passed$", said, re.MULTILINE)
    assert re.search(r"^! +0:\d\d  lab/bad +\d+ s  1 passed, 1 failed$", said, re.MULTILINE)
    assert "assert 'this' == 'that'" in said
    assert "lab/good" not in said.partition("=====")[2]


def test_what_goes_wrong_outside_of_a_test_is_told(run):
    jobs = [
        job(run, "unreadable", "import nothing_of_this_name\n"),
        job(run, "empty", "x = 1\n"),
        job(run, "skipped", "import pytest\npytestmark = pytest.mark.skip('no such program')\ndef test_a(): pass\n"),
        job(run, "crashed", "import os, signal\ndef test_a(): os.kill(os.getpid(), signal.SIGSEGV)\n"),
        job(run, "set_up", "import pytest\n@pytest.fixture\ndef a(): 1 / 0\ndef test_a(a): pass\n"),
        job(run, "torn_down", "import pytest\n@pytest.fixture\ndef a():\n yield\n 1 / 0\ndef test_a(a): pass\n"),
    ]
    words = {result.name.removeprefix("lab/"): result.words for result in run.do(jobs)}
    assert words == {
        "unreadable": "1 failed; pytest did not come to its end: exit code 2",
        "empty": "no tests were found",
        "skipped": "1 skipped; everything was skipped: Skipped: no such program",
        "crashed": "pytest did not come to its end: exit code -11",
        "set_up": "1 failed",
        "torn_down": "1 failed",
    }


def test_a_jobs_temporary_folder_goes_with_it(run):
    (result,) = run.do([job(run, "a", "def test_a(tmp_path):\n open('where', 'w').write(str(tmp_path))\n")])
    assert result.good
    assert not Path((run.root / "where").read_text()).exists()


def test_a_job_that_hangs_is_ended_with_what_it_made_and_is_a_failure(run):
    one = Process(job(run, "hangs", WAITS), run.root, "all", run.folder, limit=300)
    until(run.root / "tests/test_hangs.up")
    assert one.poll() is None
    one._limit = 0.0
    result = over(one)
    assert result.problem == "not done after 0 s"
    assert not one.killed
    assert (run.root / "tests/test_hangs.down").exists()


def test_one_that_does_not_end_when_told_is_killed_with_its_children(run, monkeypatch):
    monkeypatch.setattr(process, "GRACE", 1.0)
    text = """
import pathlib, signal, subprocess, time
def test_a():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "600"])
    pathlib.Path("pid").write_text(str(child.pid))
    time.sleep(600)
"""
    one = Process(job(run, "stubborn", text), run.root, "all", run.folder, 300)
    until(run.root / "pid")
    one._limit = 0.0
    assert not over(one).good
    assert one.killed
    pid = int((run.root / "pid").read_text())
    assert not alive(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_lets_its_jobs_take_down_what_they_made(run, number):
    job(run, "a", WAITS)
    job(run, "b", WAITS)
    program = """
import sys
from pathlib import Path
from tools.suite.jobs import Job, Lane
from tools.suite.results import Result
from tools.suite.running import Run
from tools.suite.schedule import Room
root = Path.cwd()
jobs = [Job(name, Lane.LAB, tests=(f"tests/test_{name}.py",)) for name in "abc"]
run = Run(root, "all", root / "logs", Room(2, 2), limit=300)
results = run.do(jobs)
print("interrupted", run.interrupted, sorted(result.name for result in results if not result.good))
"""
    runner = subprocess.Popen(
        [sys.executable, "-c", program], cwd=run.root, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    for name in "ab":
        until(run.root / f"tests/test_{name}.up")
    # As a terminal and make do: to the whole group.
    os.killpg(runner.pid, number)
    said, _ = runner.communicate(timeout=60)
    assert said.splitlines()[-1] == "interrupted True ['a', 'b']"
    assert all((run.root / f"tests/test_{name}.down").exists() for name in "ab")


def test_what_needs_a_preparation_that_failed_is_not_run(run):
    broken = Job("prepare/contract", Lane.PREPARE, command=("false",))
    needs = job(run, "needs", "def test_a(): pass\n", needs=frozenset({"contract"}))
    results = {result.name: result for result in run.do([broken, needs])}
    assert results["lab/needs"].problem == "not run: prepare/contract failed"
    assert results["lab/needs"].passed == 0
