"""What plan, size, where and cost refuse, in whose words, and what they leave out of their answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rackserve.cli.main import main
from rackserve.lab.tiny_model import write_tiny_gguf
from rackserve.planning.question import Question
from tests.planning.sizing import LLAMA_8B

PRICES = ("--gpu-hour", "2", "--api-input", "0.5", "--api-output", "1.5")
CHAT = {"name": "chat", "model": "qwen3-8b", "max_model_len": 8192}
GPU: dict[str, Any] = {"gpu_tag": "l40s", "os": "ubuntu-24.04", "memory_mib": 64_000, "services": [CHAT]}
CPU: dict[str, Any] = {"gpu_tag": "cpu", "memory_mib": 64_000, "services": [CHAT]}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    def start(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["rackserve", *arguments])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capfd.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return start


@pytest.fixture
def inventory(tmp_path: Path) -> Callable[..., str]:
    def write(*hosts: Any) -> str:
        path = tmp_path / "site.py"
        path.write_text(f"hosts = {list(hosts)!r}\n")
        return str(path)

    return write


def keys_of(out: str) -> list[str]:
    return [error.get("key", "") for error in json.loads(out)["errors"]]


# plan


def test_ram_is_a_budget_of_hosts_that_serve_from_it_alone(run, inventory):
    _, out, _ = run("plan", inventory(("gpu", GPU), ("ram", CPU)), "--json")
    budgets = {host["name"]: (host["memory_mib"], host["budget_mib"]) for host in json.loads(out)["hosts"]}
    assert budgets == {"gpu": (None, None), "ram": (64_000, 54_400)}


def test_a_stack_that_cannot_be_draws_no_bar_of_ram(run, inventory):
    code, _, err = run("plan", inventory(("gpu", GPU | {"driver_branch": "555"})))
    assert (code, "MiB budget" in err) == (1, False)
    assert "MiB budget" in run("plan", inventory(("ram", CPU)))[2]


@pytest.mark.parametrize("data", [None, [1], 5, "x"])
def test_a_host_without_a_mapping_is_named(run, inventory, data):
    code, _, err = run("plan", inventory(("b", CPU), ("a", data)))
    assert code == 2
    assert f"host a: expected a mapping of settings, found {data!r}" in err
    assert "host b" not in err


def test_a_folder_is_called_one(run, tmp_path):
    code, _, err = run("plan", str(tmp_path))
    assert (code, "is a folder" in err) == (2, True)


# size


def test_everything_that_is_wrong_with_a_question_is_told_at_once(run):
    words = ("--gpu", "apple-m4-max", "--gpus", "2", "--gpu-memory-utilization", "2", "--memory-ceiling", "0")
    code, out, _ = run("size", "--model", "gpt-9", *words, "--json")
    assert code == 2
    assert keys_of(out) == [
        *("--model", "--memory-mib", "--gpus", "--gpu-memory-utilization", "--memory-ceiling"),
        "--gpu-memory-utilization",
    ]


@pytest.mark.parametrize("option", ["--gpu-memory-utilization", "--tensor-parallel", "--pipeline-parallel"])
@pytest.mark.parametrize("runtime", ["llama.cpp", "ollama", "lmstudio"])
def test_what_llama_cpp_cannot_be_told_is_refused(run, runtime, option):
    words = ("size", "--model", "qwen3-8b", "--gpu", "l40s", "--runtime", runtime, option, "1")
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert f"{option}: has no meaning for {runtime} (leave it out)" in err


def test_nor_can_a_gguf_file(run, tmp_path):
    write_tiny_gguf(tmp_path / "tiny.gguf")
    code, _, err = run("size", "--gguf", "tiny.gguf", "--gpu", "l40s", "--tensor-parallel", "1")
    assert (code, "--tensor-parallel: has no meaning for llama.cpp" in err) == (2, True)


def test_a_lone_config_names_its_model_and_no_folder(run, tmp_path):
    (tmp_path / "some_config.json").write_text(json.dumps(LLAMA_8B))
    words = ("--gpu", "h100-pcie", "--json")
    assert json.loads(run("size", "--config", "some_config.json", *words)[1])["argv"][:3] == ["vllm", "serve", "some"]
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    assert json.loads(run("size", "--config", "mine", *words)[1])["argv"][2] == "mine"


def test_many_gpus_are_sized_like_few(run):
    words = ("size", "--model", "deepseek-v3", "--gpu", "h100-sxm-80gb", "--json", "--gpus")
    assert json.loads(run(*words, "128")[1])["gpus"] == 128
    told = run("size", "--model", "qwen3-8b", "--gpu", "arc-b580", "--runtime", "vllm", "--gpus", "64")[2]
    assert "arc-b580, arc-b580" not in told


def test_types_of_kv_cache_may_be_written_in_capitals(run):
    words = ("size", "--model", "qwen3-8b", "--gpu", "l40s", "--runtime", "llama.cpp", "--kv-cache-dtype", "Q8_0")
    assert run(*words)[0] == 0


@pytest.mark.parametrize("command", ["size", "cost"])
def test_ram_of_a_host_has_an_end(run, command):
    code, _, err = run(command, "--model", "qwen3-8b", "--gpu", "cpu", "--memory-mib", str(64 * 2**20 + 1))
    assert (code, "--memory-mib" in err) == (2, True)


def test_an_unknown_model_is_told_in_two_parts(run):
    assert "; any other model: --config" in run("size", "--model", "gpt-9", "--gpu", "l40s")[2]


# cost


@pytest.mark.parametrize("tag", ["apple-m4-max", "cpu"])
def test_memory_that_is_the_hosts_own_is_paid_once(run, tag):
    words = ("--gpu", tag, "--gpus", "2", "--memory-mib", "64000", *PRICES, "--json")
    code, out, _ = run("cost", "--model", "qwen3-8b", *words)
    assert (code, keys_of(out)) == (2, ["--gpus"])
    assert "has one memory, that of the host" in json.loads(out)["errors"][0]["message"]


@pytest.mark.parametrize("command", [("size",), ("cost", *PRICES)])
def test_what_would_work_is_told_with_what_does_not(run, command):
    words = (*command, "--model", "qwen3-8b", "--gpu", "arc-b580", "--runtime", "vllm")
    code, out, _ = run(*words, "--json")
    (error,) = json.loads(out)["errors"]
    assert (code, set(error)) == (1, {"message"})
    assert error["message"].endswith(")")


# where


def test_a_warning_is_told_once(run, inventory, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    hosts = [(name, {"gpu_tag": "arc-b580", "os": "ubuntu-26.04"}) for name in ("h1", "h2")]
    code, _, err = run("where", inventory(*hosts), "--config", "config.json", "--runtime", "llama.cpp")
    assert code == 0
    assert err.count("GGUF") == 1


@pytest.mark.parametrize("command", ["where", "cost"])
def test_a_gguf_files_own_parts_are_sized(run, inventory, tmp_path, command, monkeypatch):
    asked = []
    place = f"rackserve.cli.{command}.Question"
    write_tiny_gguf(tmp_path / "tiny.gguf")

    def question(**fields: Any) -> Question:
        asked.append(fields["file_parts"])
        return Question(**fields)

    monkeypatch.setattr(place, question)
    if command == "where":
        run("where", inventory(("h1", {"gpu_tag": "l40s"})), "--gguf", "tiny.gguf")
    else:
        run("cost", "--gguf", "tiny.gguf", "--gpu", "l40s", *PRICES)
    ((embedding, output),) = asked
    assert embedding > 0
    assert output >= 0
