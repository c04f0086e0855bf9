"""The operation: nothing where a model is complete, else the program with its token, which is nowhere to be seen."""

from __future__ import annotations

import ast
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from rackserve.facts.snapshots import Snapshot, SnapshotState
from rackserve.keys import key_problems
from rackserve.operations.snapshot import snapshot
from rackserve.settings import load_hosts
from tests.operations.hub_bench import NAME, REPO, REVISION, HubServer, assert_in_place, serving
from tests.operations.scripting import ENVIRONMENT
from tests.operations.sending import commands

CANARY = "hf_thisIsTheCanary0123456789"
PATH = f"/srv/models/{NAME}@{REVISION}"
MODEL = {"hub": "https://hub.example", "repo": REPO, "revision": REVISION, "path": PATH}
SCRIPTS = resources.files("rackserve.operations") / "scripts"


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    (tmp_path / "token").write_text(f"{CANARY}\n")
    return str(tmp_path / "token")


def observed(folder: Path) -> SnapshotState | None:
    """What the fact says of a real folder."""
    said = subprocess.run(
        ["sh", "-c", Snapshot().command(str(folder))], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert said.stderr == ""
    return Snapshot().process(said.stdout.splitlines())


def carried_out(command: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command.get_raw_value()],
        input="".join(command.connector_arguments["_stdin"]),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_model_in_place_is_not_fetched_again_and_needs_no_token():
    model = MODEL | {"token_file": "/nonexistent"}
    assert commands(snapshot, {Snapshot: SnapshotState(())}, **model) == []


@pytest.mark.parametrize("state", [None, SnapshotState(("model.safetensors",))])
@pytest.mark.parametrize(("revision", "asked"), [(REVISION, REVISION), (None, "main")])
def test_a_model_that_is_missing_or_damaged_is_fetched(state, revision, asked):
    (command,) = commands(snapshot, {Snapshot: state}, **(MODEL | {"revision": revision}))
    assert command.get_raw_value() == f"python3 -I - https://hub.example {REPO} {asked} {PATH}"


def test_the_token_travels_on_standard_input_and_nowhere_else(token_file):
    (command,) = commands(snapshot, {Snapshot: None}, **MODEL, token_file=token_file)
    (text,) = command.connector_arguments["_stdin"]
    assert text.count(CANARY) == 1
    for shown in (command.get_raw_value(), command.get_masked_value(), str(command), repr(command)):
        assert CANARY not in shown


@pytest.mark.parametrize("token", ["quo\"te-and'quote", "back\\slash-n\\n", "percent%s{brace}", "x" * 4096])
def test_a_token_of_any_characters_arrives_as_it_is(tmp_path, token):
    (tmp_path / "token").write_text(token)
    with serving(HubServer(token=token)) as hub:
        folder = tmp_path / "models" / f"{NAME}@{REVISION}"
        model = MODEL | {"hub": hub.url, "path": str(folder)}
        (command,) = commands(snapshot, {Snapshot: None}, **model, token_file=str(tmp_path / "token"))
        done = carried_out(command)
        assert (done.returncode, done.stderr) == (0, "")
    assert_in_place(folder)


def test_a_program_that_fails_in_any_way_does_not_show_the_token(tmp_path, token_file):
    model = MODEL | {"path": str(tmp_path / "m@x"), "token_file": token_file}
    (command,) = commands(snapshot, {Snapshot: None}, **model)
    (text,) = command.connector_arguments["_stdin"]
    command.connector_arguments["_stdin"] = [text.replace("    os.umask(0o022)\n", "    raise KeyError\n")]
    done = carried_out(command)
    assert "KeyError" in done.stderr
    assert CANARY not in done.stderr


def test_what_is_on_a_host_is_seen_as_it_is(tmp_path):
    folder = tmp_path / "models" / f"{NAME}@{REVISION}"
    branch = folder.with_name(f"{NAME}@main")
    assert observed(folder) is None
    with serving(HubServer()) as hub:
        model = MODEL | {"hub": hub.url, "path": str(branch), "revision": None}
        (command,) = commands(snapshot, {Snapshot: None}, **model)
        assert carried_out(command).returncode == 0
    assert (observed(folder), observed(branch)) == (SnapshotState(()), SnapshotState(()))
    (folder / "config.json").write_text("{}")
    (folder / "additional_chat_templates" / "tools.jinja").unlink()
    assert observed(branch) == SnapshotState(("additional_chat_templates/tools.jinja", "config.json"))
    (folder / ".rackserve-manifest.json").write_text("{")
    assert observed(folder) is None


@pytest.mark.parametrize("name", ["hub.py", "snapshot.py"])
def test_the_program_is_python_as_old_as_hosts_have_it(name):
    # A SyntaxError says what is newer.
    assert ast.parse((SCRIPTS / name).read_text(encoding="utf-8"), feature_version=(3, 9)).body


@pytest.mark.parametrize("content", [None, b"", b"short", b"two words-here", b"one-line\nother-line", b"x" * 4097])
def test_a_token_file_that_holds_no_token_is_told_before_any_host_is_reached(tmp_path, content):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    (problem,) = key_problems(load_hosts([("h1", {"gpu_tag": "cpu", "hf_token_file": str(path)})]))
    assert (problem.host, problem.service, problem.key) == ("h1", "", "hf_token_file")
    assert str(path) in problem.message
    assert "other-line" not in str(problem)


def test_a_token_file_with_a_token_is_no_problem(token_file):
    assert key_problems(load_hosts([("h1", {"gpu_tag": "cpu", "hf_token_file": token_file})])) == []
