"""What the words of `python -m tools.suite` do, in a small checkout with the runner of this one."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from tools.suite import __main__ as suite
from tools.suite import shares
from tools.suite.parts import Kept
from tools.suite.results import Result

ROOT = Path(__file__).resolve().parents[2]
GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")
FILES = {
    "Makefile": "lint-only:\n\t@true\n",
    ".gitignore": "/build/\n__pycache__/\n",
    "tests/shares.toml": '[seconds.test]\n"a" = 1\n"gone" = 5\n\n[seconds.all]\n"b" = 70\n"gone" = 5\n',
    "tests/a/test_a.py": "def test_a(): pass\n",
    "tests/b/test_b.py": "def test_b(): pass\n",
    "tests/conftest.py": 'from hypothesis import settings\nsettings.register_profile("many")\n',
    "pyproject.toml": "[tool.pytest.ini_options]\n"
    'addopts = "--import-mode=importlib --disable-plugin-autoload -p _hypothesis_pytestplugin"\n'
    'markers = ["full: x", "vagrant: x", "gpu: x"]\n',
}


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    commit(tmp_path)
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    monkeypatch.setattr(suite, "BUILD", tmp_path / "build")
    monkeypatch.setattr(suite, "room_for_labs", nullcontext)
    monkeypatch.setattr(suite, "remove_labs", lambda _: None)
    return tmp_path


def commit(checkout: Path) -> None:
    subprocess.run(["git", "add", "-A"], cwd=checkout, check=True)
    subprocess.run([*GIT, "commit", "-qm", "x"], cwd=checkout, check=True)


def test_parts_make_a_complete_report_of_a_commit(checkout, capsys):
    assert [suite.run_all(f"{part}/2") for part in (1, 2)] == [0, 0]
    assert suite.report() == 0
    said = capsys.readouterr().out
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, check=True, capture_output=True, text=True).stdout
    assert f"make test-all of commit {head[:12]}, code " in said
    assert said.splitlines()[-1] == "2 passed, 0 failed, 0 skipped"


def test_a_part_without_a_job_is_no_failure(capsys):
    assert suite.run_all("9/9") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 0 failed, 0 skipped"


def test_what_is_not_committed_is_nobodys_result(checkout, capsys):
    (checkout / "tests/b/test_b.py").write_text("def test_b(): assert 1\n")
    (checkout / "new.py").write_text("")
    assert suite.run_all() == 0
    assert suite.report() == 1
    said = capsys.readouterr().out
    assert "tests/b/test_b.py: not as in commit " in said
    assert "new.py: not as in commit " in said


def test_a_job_during_which_code_was_written_has_no_result(checkout, capsys):
    text = FILES["tests/b/test_b.py"]
    (checkout / "tests/a/test_a.py").write_text(
        f"from pathlib import Path\ndef test_a():\n    Path('tests/b/test_b.py').write_text({text!r})\n"
    )
    commit(checkout)
    assert suite.run_all() == 1
    assert "the code was written to while it was tested" in capsys.readouterr().out
    assert suite.report() == 1
    assert "a: not run for this code" in capsys.readouterr().out


@pytest.mark.parametrize("mark", ["gpu", "full"])
def test_rows_of_what_is_left_out_are_in_the_report(checkout, capsys, mark):
    (checkout / "tests/a/test_a.py").write_text(f"import pytest\n@pytest.mark.{mark}\ndef test_a(): pass\n")
    commit(checkout)
    assert suite.run_all() == 0
    capsys.readouterr()
    assert suite.report() == 0
    assert ("its markers leave all of it out" in capsys.readouterr().out) is (mark == "gpu")


def kept(folder: Path, **results: float) -> None:
    for name, seconds in results.items():
        Kept(folder).put(Result(name, seconds, passed=1), "1/1")


def test_a_part_of_the_long_run_is_added_to_what_is_recorded(checkout):
    kept(checkout / "build/test-all" / suite.code_of(checkout), a=20.0)
    assert suite.record() == 0
    assert shares.load(checkout).seconds == {"test": {"a": 1}, "all": {"a": 20, "b": 70}}


def test_a_whole_short_run_is_recorded_and_a_part_of_one_refused(checkout):
    folder = checkout / "build/suite/test/kept"
    kept(folder, a=20.0, lint=9.0)
    with pytest.raises(SystemExit, match="the last `make test` that passed had no b: `make test` first"):
        suite.record()
    kept(folder, b=30.0)
    assert suite.record() == 0
    assert shares.load(checkout).seconds == {"test": {"a": 20, "b": 30, "lint": 9}, "all": {"b": 70}}


def test_a_share_that_doubles_fails_the_run(checkout, capsys, monkeypatch):
    (checkout / "tests/shares.toml").write_text('[seconds.test]\n"a" = 1000\n')
    monkeypatch.setattr(shares, "FLOOR", 0.0)
    assert suite.run_test() == 1
    said = capsys.readouterr().out
    assert "tests/b took " in said
    assert said.splitlines()[-1] == "2 passed, 1 failed, 0 skipped"


def test_a_pipe_that_nobody_reads_is_told_in_a_sentence(checkout):
    program = "from tools.suite import __main__ as suite\nfrom contextlib import nullcontext\n"
    program += f"suite.BUILD = suite.Path({str(checkout / 'build')!r})\n"
    program += "suite.jobs_of = lambda *_: []\nsuite.main()\n"
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(
        [sys.executable, "-c", program, "report"],
        cwd=ROOT,
        stdout=writes,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writes)
    assert done.returncode == 1
    assert done.stderr == "the run was broken off, and what ran was ended: [Errno 32] Broken pipe\n"
