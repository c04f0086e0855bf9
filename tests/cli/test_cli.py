"""plan and render as an operator runs them: exit codes, what is on which stream, and no traceback ever."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rackserve.catalog.loader import load_catalog
from rackserve.cli.main import cli, main
from rackserve.planning.fit import plan_hosts
from rackserve.rendering import host_files
from rackserve.rendering.units import unit_digest
from rackserve.settings import load_hosts

SMALL = "smollm2-135m-instruct"
GOOD: dict[str, Any] = {"gpu_tag": "cpu", "memory_mib": 4096, "services": [{"name": "chat", "model": SMALL}]}
TOO_SMALL = GOOD | {"memory_mib": 128}


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Run = Callable[..., Said]
Write = Callable[[object], str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    # Through main() and not through click alone: it is main() that turns errors into words and exit codes.
    def start(*arguments: str) -> Said:
        monkeypatch.setattr("sys.argv", ["rackserve", *arguments])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return Said(int(exit_.value.code or 0), captured.out, captured.err)

    return start


@pytest.fixture
def inventory(tmp_path: Path) -> Write:
    def write(content: object) -> str:
        path = tmp_path / "site.py"
        path.write_text(content if isinstance(content, str) else f"hosts = {content!r}\n")
        return str(path)

    return write


# plan


def test_a_plan_that_fits_exits_0_and_speaks_on_stderr(run, inventory):
    said = run("plan", inventory([("h1", GOOD)]))
    assert (said.code, said.out) == (0, "")
    assert all(word in said.err for word in ("h1", "chat", SMALL, "http://127.0.0.1:8001/v1", "max_model_len 6400"))


def test_a_plan_that_does_not_fit_exits_1_and_names_host_and_service(run, inventory):
    said = run("plan", inventory([("h1", GOOD), ("h2", TOO_SMALL)]))
    assert said.code == 1
    assert "host h2: service chat" in said.err
    assert "does not fit" in said.err


@pytest.mark.parametrize("name", ["[fe80::1]", "h1[red]", "[/red]"])
def test_a_refusal_names_a_host_whatever_it_is_called(run, inventory, name):
    said = run("plan", inventory([(name, TOO_SMALL)]))
    assert said.code == 1
    assert f"host {name}: service chat" in said.err


def test_json_is_one_object_on_stdout_alone(run, inventory):
    said = run("plan", inventory([("h1", GOOD), ("h2", TOO_SMALL)]), "--json")
    assert said.code == 1
    answer = json.loads(said.out)
    assert answer["errors"] == []
    one, two = answer["hosts"]
    assert (one["name"], one["errors"], two["services"]) == ("h1", [], [])
    assert [(error["host"], error["service"]) for error in two["errors"]] == [("h2", "chat")]
    (service,) = one["services"]
    promised = {"name", "gpus", "port", "fits", "weights_gib_per_gpu", "kv_cache_tokens", "max_concurrency", "argv"}
    assert promised <= set(service)
    (planned,) = plan_hosts(load_hosts([("h1", GOOD)]), load_catalog())
    assert service["digest"] == unit_digest(planned.services[0])
    assert "--offline" in service["argv"]


def test_json_of_an_inventory_that_cannot_be_used_is_still_one_object(run, inventory):
    said = run("plan", inventory([("h1", {"gpu_tag": "cpu", "memory_mib": "much"})]), "--json")
    assert said.code == 2
    answer = json.loads(said.out)
    assert answer["hosts"] == []
    assert [(error["host"], error["key"]) for error in answer["errors"]] == [("h1", "memory_mib")]


# what cannot be used


def test_every_problem_of_every_host_is_told_and_exits_2(run, inventory):
    hosts = [
        ("h1", {"gpu_tag": "cpu", "memory_mib": "much"}),
        ("h2", {"gpu_tags": "cpu"}),
        ("h3", GOOD | {"services": [{"name": "chat", "model": SMALL, "port": 1}]}),
    ]
    said = run("plan", inventory(hosts))
    assert (said.code, said.out) == (2, "")
    told = ("host h1: memory_mib", "host h2: gpu_tags", "did you mean gpu_tag?", "host h3: service chat: port")
    assert all(text in said.err for text in told)


def test_names_that_no_catalogue_knows_are_told_for_all_hosts(run, inventory):
    unknown = GOOD | {"services": [{"name": "chat", "model": "gpt-9"}]}
    said = run("plan", inventory([("h1", unknown), ("h2", GOOD | {"gpu_tag": "z9"})]))
    assert said.code == 2
    assert ("gpt-9" in said.err, "z9" in said.err) == (True, True)


def test_a_catalogue_that_cannot_be_used_is_told_once(run, inventory, tmp_path):
    (tmp_path / "mine.toml").write_text("[")
    data = GOOD | {"catalog": [str(tmp_path / "mine.toml")]}
    said = run("plan", inventory([("h1", data), ("h2", data)]))
    assert said.code == 2
    assert said.err.count("mine.toml") == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("hosts = [\n", "never closed"),
        ("import no_such_module\n", "no_such_module"),
        ("raise ValueError('the reason')\n", "the reason"),
        ("hosts = [('h1', 5)]\n", ""),
        ("import sys\nsys.exit(3)\n", ""),
    ],
)
def test_an_inventory_that_is_broken_python_is_told_with_file_and_reason(run, inventory, content, reason):
    path = inventory(content)
    said = run("plan", path)
    assert said.code == 2
    assert path in said.err
    assert reason in said.err


@pytest.mark.parametrize("content", ["", "_hidden = ['h1']\n", "hosts = []\n"])
def test_an_inventory_without_hosts_is_told(run, inventory, content):
    path = inventory(content)
    said = run("plan", path)
    assert said.code == 2
    assert path in said.err


def test_what_an_inventory_prints_does_not_get_into_the_json(run, inventory):
    said = run("plan", inventory(f"print('hello')\nhosts = [('h1', {GOOD!r})]\n"), "--json")
    assert said.code == 0
    assert json.loads(said.out)["hosts"]


@pytest.mark.parametrize("command", [["plan"], ["render", "--out", "out"], ["plan", "--json"]])
def test_a_missing_inventory_is_told(run, command):
    said = run(*command, "nowhere.py")
    assert said.code == 2
    assert "nowhere.py" in said.err


def test_a_folder_is_no_inventory(run, tmp_path):
    assert run("plan", str(tmp_path)).code == 2


@pytest.mark.parametrize("arguments", [["plan"], ["plan", "x.py", "--colour"], ["render", "x.py"], ["no-such-command"]])
def test_wrong_usage_exits_2(run, arguments):
    assert run(*arguments).code == 2


def test_help_can_be_had_for_every_command():
    for command in ([], ["plan"], ["render"], ["verify"], ["lab"]):
        answer = CliRunner().invoke(cli, [*command, "--help"])
        assert (answer.exit_code, "Usage:" in answer.stdout) == (0, True)


# --limit


@pytest.mark.parametrize(("limit", "names"), [("h2", ["h2"]), ("h*", ["h1", "h2"]), ("hosts", ["h1", "h2"])])
def test_limit_takes_names_patterns_and_groups(run, inventory, limit, names):
    said = run("plan", inventory([("h1", GOOD), ("h2", GOOD)]), "--limit", limit, "--json")
    assert [entry["name"] for entry in json.loads(said.out)["hosts"]] == names


def test_a_limit_that_matches_nothing_is_told_with_what_there_is(run, inventory):
    said = run("plan", inventory([("h1", GOOD)]), "--limit", "h9")
    assert said.code == 2
    assert all(word in said.err for word in ("--limit", "h9", "h1"))


def test_problems_of_hosts_outside_the_limit_are_not_told(run, inventory):
    assert run("plan", inventory([("h1", GOOD), ("h2", {})]), "--limit", "h1").code == 0


# render


def written(folder: Path) -> dict[str, tuple[str, str]]:
    return {
        f"/{path.relative_to(folder)}": (path.read_bytes().decode(), f"{stat.S_IMODE(path.stat().st_mode):o}")
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("times", [1, 2])
def test_render_writes_byte_for_byte_what_is_installed_with_its_modes(run, inventory, tmp_path, times):
    for _ in range(times):
        said = run("render", inventory([("h1", GOOD), ("h2", GOOD)]), "--out", str(tmp_path / "out"))
        assert (said.code, said.out) == (0, "")
    (planned,) = plan_hosts(load_hosts([("h1", GOOD)]), load_catalog())
    expected = {file.path: (file.text, file.mode) for file in host_files(planned)}
    assert len(expected) == 11
    assert written(tmp_path / "out" / "h1") == written(tmp_path / "out" / "h2") == expected


def test_render_writes_nothing_if_anything_does_not_fit(run, inventory, tmp_path):
    said = run("render", inventory([("h1", GOOD), ("h2", TOO_SMALL)]), "--out", str(tmp_path / "out"))
    assert said.code == 1
    assert "host h2" in said.err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_told(run, inventory, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "h1").write_text("a file")
    said = run("render", inventory([("h1", GOOD)]), "--out", str(tmp_path / "out"))
    assert said.code == 2
    assert "--out" in said.err


def test_two_hosts_never_render_into_one_folder(run, inventory, tmp_path):
    hosts = [("@ssh/h1", GOOD), ("@docker/h1", GOOD | {"services": [{"name": "other", "model": SMALL}]})]
    run("render", inventory(hosts), "--out", str(tmp_path / "out"))
    for folder in tmp_path.glob("out/*"):
        assert len(list(folder.rglob("10-plan.conf"))) == 1


@pytest.mark.parametrize("name", ["..", "@ssh/.."])
def test_no_host_renders_outside_the_folder(run, inventory, tmp_path, name):
    run("render", inventory([(name, GOOD)]), "--out", str(tmp_path / "out" / "here"))
    outside = [path for path in tmp_path.rglob("10-plan.conf") if (tmp_path / "out" / "here") not in path.parents]
    assert outside == []


def test_what_fits_and_cannot_be_installed_is_shown_by_plan_and_stops_render(run, inventory):
    service = {"name": "chat", "model": "qwen3-8b", "runtime": "lmstudio", "max_model_len": 4096}
    path = inventory([("h1", {"gpu_tag": "l40s", "os": "ubuntu-24.04", "services": [service]})])
    said = run("plan", path)
    assert said.code == 0
    assert "fits, and cannot be installed" in said.err
    assert "lmstudio_accept_license" in said.err
    (problem,) = json.loads(run("plan", path, "--json").out)["hosts"][0]["not_installable"]
    assert problem["key"] == "lmstudio_accept_license"
    refused = run("render", path, "--out", "rendered")
    assert refused.code != 0
    assert "lmstudio_accept_license" in refused.err
