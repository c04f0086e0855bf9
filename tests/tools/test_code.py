"""Which code is tested: what counts as code, and what git says of it."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from tools.suite.code import code_of, commit_of, touched_since, uncommitted


@pytest.fixture
def checkout(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "page.md").write_text("1")
    (tmp_path / ".gitignore").write_text("build/\n")
    (tmp_path / "build").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/shares.toml").write_text("1")
    subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize("path", ["page.md", "tests/shares.toml", "build/x.py", "new.md"])
def test_what_is_no_code_may_change(checkout, path):
    before = code_of(checkout)
    (checkout / path).write_text("2")
    assert code_of(checkout) == before


@pytest.mark.parametrize("path", ["a.py", "new.py", ".gitignore"])
def test_code_may_not_committed_or_not(checkout, path):
    before = code_of(checkout)
    (checkout / path).write_text("2")
    assert code_of(checkout) != before


def test_a_file_that_went_was_renamed_or_made_a_program_is_other_code(checkout):
    states = [code_of(checkout)]
    (checkout / "a.py").chmod(0o755)
    states.append(code_of(checkout))
    (checkout / "a.py").rename(checkout / "b.py")
    states.append(code_of(checkout))
    (checkout / "b.py").unlink()
    states.append(code_of(checkout))
    assert len(set(states)) == 4


def test_a_commit_alone_is_not(checkout):
    before = code_of(checkout)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *identity, "commit", "-qm", "x"], cwd=checkout, check=True)
    assert code_of(checkout) == before


def commit(checkout) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *identity, "commit", "-qm", "x"], cwd=checkout, check=True)


def test_the_repository_that_a_hook_runs_for_is_not_asked(checkout, monkeypatch):
    before = code_of(checkout)
    monkeypatch.setenv("GIT_DIR", "/nonexistent/.git")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nonexistent/.git/index")
    assert code_of(checkout) == before


def test_outside_of_git_a_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(SystemExit, match=rf"`git ls-files` failed in {tmp_path}: .*not a git repository"):
        code_of(tmp_path)


def test_code_that_was_changed_and_changed_back_was_touched(checkout):
    before = code_of(checkout)
    (checkout / "a.py").write_text("2")
    (checkout / "a.py").write_text("1")
    # What a file says of its own time may be anything.
    os.utime(checkout / "a.py", (0, 0))
    changed = (checkout / "a.py").stat().st_ctime
    assert code_of(checkout) == before
    assert touched_since(checkout, changed - 0.5)
    assert not touched_since(checkout, changed)


def test_pages_may_be_written_meanwhile(checkout):
    moment = max((checkout / name).stat().st_ctime for name in ("a.py", ".gitignore"))
    time.sleep(0.05)
    (checkout / "page.md").write_text("2")
    assert not touched_since(checkout, moment)


def test_code_that_is_not_as_committed_is_named(checkout):
    commit(checkout)
    assert uncommitted(checkout) == []
    (checkout / "page.md").write_text("2")
    (checkout / "new.md").write_text("2")
    (checkout / "build/x.py").write_text("2")
    assert uncommitted(checkout) == []
    (checkout / "a.py").write_text("2")
    (checkout / "folder").mkdir()
    (checkout / "folder/new file.py").write_text("2")
    assert uncommitted(checkout) == ["a.py", "folder/new file.py"]
    (checkout / "a.py").rename(checkout / "b.py")
    subprocess.run(["git", "add", "-A"], cwd=checkout, check=True)
    assert uncommitted(checkout) == ["a.py", "b.py", "folder/new file.py"]


def test_the_commit_is_named(checkout):
    commit(checkout)
    said = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, check=True, capture_output=True, text=True).stdout
    assert said.startswith(commit_of(checkout))
    assert len(commit_of(checkout)) == 12
