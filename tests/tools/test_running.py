"""Real pytest processes in lanes: what is said of them, and that all of them end with the run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import needs
from tools.suite import running
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
def run(tmp_path: Path) -> Run:
    """In a checkout of its own, with the runner of this one."""
    # Plugins of this project take longer to load than these tests take.
    options = "--import-mode=importlib --disable-plugin-autoload"
    markers = 'markers = ["full: x", "vagrant: x", "gpu: x"]'
    (tmp_path / "pyproject.toml").write_text(f'[tool.pytest.ini_options]\naddopts = "{options}"\n{markers}\n')
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    (tmp_path / "tests").mkdir()
    return Run(tmp_path, "test", tmp_path / "logs", Room(3, 2))


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
    one = Process(job(run, "hangs", WAITS), run.root, "test", run.folder)
    until(run.root / "tests/test_hangs.up")
    assert one.poll() is None
    one._limit = 0.0
    result = over(one)
    assert result.problem == "not done after 0 s"
    assert not one.killed
    assert (run.root / "tests/test_hangs.down").exists()


def test_one_that_does_not_end_when_told_is_killed_with_its_children(run):
    text = """
import pathlib, signal, subprocess, time
def test_a():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "600"])
    pathlib.Path("pid").write_text(str(child.pid))
    time.sleep(600)
"""
    one = Process(job(run, "stubborn", text), run.root, "test", run.folder)
    until(run.root / "pid")
    one._limit, one._grace = 0.0, 1.0
    assert not over(one).good
    assert one.killed
    pid = int((run.root / "pid").read_text())
    assert not alive(pid)


PROGRAM = """
import sys
from pathlib import Path
from tools.suite.jobs import Job, Lane
from tools.suite.running import Run
from tools.suite.schedule import Room
root = Path.cwd()
jobs = [Job(name, Lane.LAB, tests=(f"tests/test_{name}.py",)) for name in sys.argv[2:]]
run = Run(root, "test", root / "logs", Room(int(sys.argv[1]), 2))
results = run.do(jobs)
print("interrupted", run.interrupted, sorted(result.name for result in results if not result.good))
"""


@contextmanager
def runner_of(run: Run, lanes: int, *names: str) -> Iterator[subprocess.Popen[str]]:
    """A run in a process of its own, in which the jobs a and b are at work."""
    job(run, "a", WAITS)
    job(run, "b", WAITS)
    command = [sys.executable, "-c", PROGRAM, str(lanes), *names]
    # One that is killed leaves its jobs' temporary folders.
    environment = {**os.environ, "TMPDIR": str(run.root)}
    with subprocess.Popen(
        command, cwd=run.root, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as runner:
        try:
            for name in "ab":
                until(run.root / f"tests/test_{name}.up")
            yield runner
        finally:
            runner.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_ended_lets_its_jobs_take_down_what_they_made(run, number):
    with runner_of(run, 2, "a", "b", "c") as runner:
        # As a terminal and make do: to the whole group.
        os.killpg(runner.pid, number)
        said, _ = runner.communicate(timeout=60)
    assert said.splitlines()[-1] == "interrupted True ['a', 'b']"
    assert all((run.root / f"tests/test_{name}.down").exists() for name in "ab")


@needs.programs("setpriv")
def test_a_runner_that_is_killed_takes_its_jobs_with_it(run):
    with runner_of(run, 2, "a", "b") as runner:
        runner.kill()
    for name in "ab":
        until(run.root / f"tests/test_{name}.down")


def test_a_runner_that_nobody_listens_to_ends_its_jobs_before_itself(run):
    job(run, "quick", "import pathlib, time\ndef test_a():\n while not pathlib.Path('go').exists(): time.sleep(0.05)\n")
    with runner_of(run, 3, "quick", "a", "b") as runner:
        runner.stdout.close()
        (run.root / "go").touch()
        assert runner.wait(60) != 0
    assert all((run.root / f"tests/test_{name}.down").exists() for name in "ab")


def test_a_run_without_a_disk_to_write_to_ends_what_it_began(run, monkeypatch):
    def refused(*_: object) -> None:
        raise OSError(28, "No space left on device")

    until_begun = run._collect

    def collect() -> None:
        until_begun()
        if (run.root / "tests/test_a.up").exists():
            refused()

    monkeypatch.setattr(run, "_collect", collect)
    with pytest.raises(OSError, match="No space left"):
        run.do([job(run, "a", WAITS)])
    assert (run.root / "tests/test_a.down").exists()


def test_what_needs_a_preparation_that_failed_is_not_run(run):
    broken = Job("prepare/contract", Lane.PREPARE, command=("false",))
    needs = job(run, "needs", "def test_a(): pass\n", needs=frozenset({"contract"}))
    results = {result.name: result for result in run.do([broken, needs])}
    assert results["lab/needs"].problem == "not run: prepare/contract failed"
    assert results["lab/needs"].passed == 0


def test_what_the_shell_has_set_for_pytest_and_python_reaches_no_job(run, monkeypatch):
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k nothing_of_this_name")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("PYTHONPATH", "/nonexistent")
    monkeypatch.setenv("GIT_DIR", "/nonexistent/.git")
    text = """
import os
def test_a(): assert not {"PYTEST_ADDOPTS", "PYTHONSAFEPATH", "PYTHONPATH", "GIT_DIR"} & set(os.environ)
"""
    (result,) = run.do([job(run, "a", text)])
    assert (result.passed, result.failed) == (1, 0)


def test_the_long_run_looks_for_many_examples(run):
    run.kind = "all"
    (run.root / "conftest.py").write_text("""
from hypothesis import settings
settings.register_profile("many", max_examples=7)
""")
    project = run.root / "pyproject.toml"
    project.write_text(project.read_text().replace("autoload", "autoload -p _hypothesis_pytestplugin"))
    text = "from hypothesis import settings\ndef test_a(): assert settings.default.max_examples == 7\n"
    (result,) = run.do([job(run, "a", text)])
    assert (result.passed, result.words) == (1, "1 passed")


def test_a_temporary_folder_that_somebody_removes_is_told(run):
    text = """
import pathlib, shutil
def test_a(tmp_path):
    shutil.rmtree(next(one for one in tmp_path.parents if one.name.startswith("rackserve-")))
    (tmp_path / "a").touch()
"""
    (result,) = run.do([job(run, "a", text)])
    assert re.search(r"its folder \S+rackserve-\S+ was removed meanwhile", result.words)


def test_labs_that_cannot_be_taken_down_do_not_hold_the_run_up(tmp_path, monkeypatch, capsys):
    (tmp_path / "tests/lab").mkdir(parents=True)
    (tmp_path / "tests/lab/left_over.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr(running, "REMOVE_S", 0.5)
    running.remove_labs(tmp_path)
    assert "labs of killed tests are not down after" in capsys.readouterr().out


def test_what_is_left_out_has_to_be_by_a_marker(run):
    marked = "import pytest\n@pytest.mark.full\ndef test_a(): pass\n"
    jobs = [job(run, "marked", marked), job(run, "hidden", "def test_hidden(): pass\ndef test_b(): pass\n")]
    (run.root / "conftest.py").write_text("""
def pytest_collection_modifyitems(config, items):
    left = [item for item in items if item.name == "test_hidden"]
    items[:] = [item for item in items if item not in left]
    config.hook.pytest_deselected(items=left)
""")
    results = {result.name: result for result in run.do(jobs)}
    assert results["lab/marked"].idle
    assert results["lab/marked"].good
    assert results["lab/hidden"].words == "1 passed; 1 left out otherwise than by markers"
