"""API keys: on disk for root alone, and in nothing else that anybody could read."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from pyinfra.api import StringCommand

from rackserve.facts.paths import PathState, PathStates
from rackserve.keys import key_problems
from rackserve.operations import commands
from rackserve.operations.secret import api_key
from rackserve.settings import load_hosts
from tests import needs
from tests.operations.hosts import on

KEY = "sk-this-is-the-secret"
PATH = "/etc/rackserve/credentials/chat/api-key"
GENERATED_SIZE = 47
needs_root = needs.root()


class FakeHost:
    def __init__(self, state: PathState | None) -> None:
        self.state = state
        self.noops: list[str] = []

    def get_fact(self, fact: type, *, paths: list[str]) -> dict[str, PathState]:
        assert fact is PathStates
        return dict.fromkeys(paths, self.state) if self.state else {}

    def noop(self, reason: str) -> None:
        self.noops.append(reason)


def sent(state: PathState | None, source: str | None, path: str = PATH) -> list[StringCommand]:
    with on(FakeHost(state)):
        return list(api_key._inner(path=path, source=source))


def state_of(text: str, user: str = "root", mode: str = "600") -> PathState:
    return PathState(mode, user, "root", len(text), hashlib.sha256(text.encode()).hexdigest())


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "key").write_text(f"{KEY}\n")
    return str(tmp_path / "key")


def run(command: StringCommand) -> subprocess.CompletedProcess[str]:
    text = "\n".join(command.connector_arguments.get("_stdin", []))
    return subprocess.run(
        ["sh", "-c", command.get_raw_value()], input=text, capture_output=True, text=True, check=False
    )


def test_a_key_made_on_the_host_stays():
    assert sent(state_of("sk-whatever\n"), None) == []


def test_the_operators_key_in_place_stays(source):
    assert sent(state_of(f"{KEY}\n"), source) == []


@pytest.mark.parametrize("state", [None, state_of("x\n", mode="644"), state_of("x\n", user="deploy")])
def test_a_key_that_is_missing_or_was_readable_is_made_anew(state):
    (command,) = sent(state, None)
    assert PATH in command.get_raw_value()


@pytest.mark.parametrize("state", [None, state_of("other\n"), state_of(f"{KEY}\n", mode="640")])
def test_the_operators_key_travels_on_standard_input_and_nowhere_else(source, state):
    *folders, write = sent(state, source)
    assert write.connector_arguments["_stdin"] == [f"{KEY}\n"]
    for command in [*folders, write]:
        for shown in (command.get_raw_value(), command.get_masked_value(), str(command), repr(command)):
            assert KEY not in shown


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"\n",
        b"  \n\n",
        b"short",
        b"# a comment line",
        b"two words-here",
        b"one-line\nother-line",
        b"\xc3\xa9" * 9,
    ],
)
def test_a_key_file_that_holds_no_key_is_told_before_any_host_is_reached(tmp_path, content):
    # llama-server leaves out empty lines and comments, and without any key it serves everybody.
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    services = [{"name": "chat", "model": "qwen3-8b", "api_key_file": str(path)}]
    (problem,) = key_problems(load_hosts([("h1", {"gpu_tag": "cpu", "memory_mib": 4096, "services": services})]))
    assert (problem.host, problem.service, problem.key) == ("h1", "chat", "api_key_file")
    assert str(path) in problem.message
    assert "other-line" not in str(problem)


def test_a_key_file_with_a_key_is_no_problem(source):
    services = [{"name": "chat", "model": "qwen3-8b", "api_key_file": source}]
    hosts = load_hosts([("h1", {"gpu_tag": "cpu", "memory_mib": 4096, "services": services})])
    assert key_problems(hosts) == []


@needs_root
def test_the_operators_key_arrives_for_root_alone(source, tmp_path):
    path = tmp_path / "etc" / "credentials" / "chat" / "api-key"
    for command in sent(None, source, str(path)):
        assert run(command).returncode == 0
    assert path.read_text() == f"{KEY}\n"
    assert (path.stat().st_mode & 0o7777, path.stat().st_uid) == (0o600, 0)
    for folder in (path.parent, path.parent.parent):
        assert folder.stat().st_mode & 0o077 == 0, f"{folder.name} can be entered by others"


@needs_root
def test_a_key_made_on_the_host_is_long_random_and_for_root_alone(tmp_path):
    keys = set()
    for name in ("a", "b", "a"):
        path = tmp_path / "credentials" / name / "api-key"
        (command,) = sent(None, None, str(path))
        assert run(command).returncode == 0
        keys.add(path.read_text())
        assert path.stat().st_mode & 0o7777 == 0o600
        assert path.parent.stat().st_mode & 0o7777 == 0o700
        assert path.parent.parent.stat().st_mode & 0o7777 == 0o700
        assert [entry.name for entry in path.parent.iterdir()] == ["api-key"]
    assert len(keys) == 3
    for key in keys:
        assert key.startswith("sk-")
        assert key.endswith("\n")
        assert len(key.strip()) >= GENERATED_SIZE - 1
        assert key.strip().replace("-", "").replace("_", "").isalnum()


# how any text is written


@needs_root
def test_a_text_is_written_byte_for_byte_with_its_mode(tmp_path):
    text = 'it\'s $HOME \\n 50% "é"\n\n'
    path = tmp_path / "new folder" / "a 'file'"
    assert run(commands.write_file(str(path), text, "750")).returncode == 0
    assert path.read_text() == text
    assert path.stat().st_mode & 0o7777 == 0o750
    assert path.parent.stat().st_mode & 0o7777 == 0o755


@needs_root
def test_a_transfer_that_is_cut_off_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old\n")
    command = commands.write_file(str(path), "new and longer\n", "644")
    command.connector_arguments["_stdin"] = ["new and"]
    done = run(command)
    assert done.returncode != 0
    assert "cut off" in done.stderr
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("file", "old\n")]


@needs_root
def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    (tmp_path / ".rackserve.abcdef").write_text("half a sec")
    assert run(commands.write_file(str(tmp_path / "file"), "whole\n", "600")).returncode == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@needs_root
def test_a_file_that_cannot_be_put_in_place_fails(tmp_path):
    (tmp_path / "file").mkdir()
    assert run(commands.write_file(str(tmp_path / "file"), "text\n", "600")).returncode != 0


def test_a_text_without_its_last_newline_is_refused():
    with pytest.raises(ValueError, match="newline"):
        commands.write_file("/x", "no newline", "644")


def test_a_damaged_upload_is_told(tmp_path):
    (tmp_path / "a b").write_bytes(b"content")
    good, bad = hashlib.sha256(b"content").hexdigest(), "0" * 64
    assert run(commands.check_sha256(str(tmp_path / "a b"), good)).returncode == 0
    assert "damaged" in run(commands.check_sha256(str(tmp_path / "a b"), bad)).stderr
    assert run(commands.check_sha256(str(tmp_path / "missing"), good)).returncode != 0
