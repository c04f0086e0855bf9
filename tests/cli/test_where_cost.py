"""where and cost as an operator runs them: exit codes, what is on which stream, and no traceback ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rackserve.cli.main import cli, main
from rackserve.lab.tiny_model import write_tiny_gguf

SMALL = "smollm2-135m-instruct"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
LARGE: tuple[str, dict[str, Any]] = ("large", {"gpu_tag": "h100-sxm-80gb", "gpu_count": 4})
LITTLE: tuple[str, dict[str, Any]] = ("little", {"gpu_tag": "rtx-3060-12gb"})
PRICES = ("--gpu-hour", "2", "--api-input", "0.5", "--api-output", "1.5")
COST = ("cost", "--model", "llama-3.1-8b-instruct", "--gpu", "l40s", *PRICES)


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Said]:
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
def inventory(tmp_path: Path) -> Callable[..., str]:
    def write(*hosts: tuple[str, dict[str, Any]]) -> str:
        path = tmp_path / "site.py"
        path.write_text(f"hosts = {list(hosts)!r}\n")
        return str(path)

    return write


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "mine" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(CONFIG))
    return str(path)


def test_help_can_be_had():
    for command in ("where", "cost"):
        answer = CliRunner().invoke(cli, [command, "--help"])
        assert (answer.exit_code, "Usage:" in answer.stdout) == (0, True)


# where


def test_hosts_that_could_are_told_on_stderr_and_exit_0(run, inventory):
    said = run("where", "qwen3-32b", inventory(LITTLE, LARGE))
    assert (said.code, said.out) == (0, "")
    assert "1 of 2 hosts could run it" in said.err
    lines = said.err.splitlines()
    row = next(line for line in lines if line.startswith("large"))
    assert all(word in row for word in ("4 of 4 x h100-sxm-80gb", "vllm", "fp8", "TP4", "32768", "nothing"))
    assert any(line.startswith("no  little (rtx-3060-12gb): ") and "GiB short" in line for line in lines)


def test_no_host_that_could_exits_1(run, inventory):
    said = run("where", "deepseek-v3", inventory(LITTLE, LARGE))
    assert said.code == 1
    assert "0 of 2 hosts" in said.err


def test_where_json_keeps_its_keys(run, inventory):
    said = run("where", "qwen3-32b", inventory(LITTLE, LARGE), "--json")
    assert (said.code, said.err) == (0, "")
    answer = json.loads(said.out)
    assert (answer["model"], answer["errors"]) == ("qwen3-32b", [])
    first, second = answer["hosts"]
    promised = {
        *("name", "gpu_tag", "gpus", "fits", "runtime", "quantization", "max_model_len", "max_concurrency"),
        *("kv_cache_tokens", "tensor_parallel", "pipeline_parallel", "fits_beside", "reason"),
    }
    assert promised <= set(first) & set(second)
    assert (first["name"], first["fits"], first["gpus"], first["tensor_parallel"]) == ("large", True, 4, 4)
    assert first["fewest"]["gpus"] == 1
    assert (second["name"], second["fits"], second["gpus"], second["fits_beside"]) == ("little", False, None, False)
    assert second["reason"]


def test_planned_services_are_shown_and_left_alone(run, inventory):
    service = {"name": "chat", "model": "qwen3-8b", "gpus": 3, "tensor_parallel": 1, "pipeline_parallel": 3}
    host = ("large", LARGE[1] | {"services": [service]})
    said = run("where", "qwen3-32b", inventory(host), "--json")
    (found,) = json.loads(said.out)["hosts"]
    assert found["taken"] == {"0": ["chat"], "1": ["chat"], "2": ["chat"]}
    assert (found["fits_beside"], found["beside"]["gpus"]) == (True, 1)
    assert "chat on 0-2" in run("where", "qwen3-32b", inventory(host)).err


def test_wishes_are_passed_on(run, inventory):
    wishes = ("--max-model-len", "8192", "--concurrency", "12", "--avg-tokens", "2000", "--quantization", "awq")
    said = run(
        "where", "qwen3-32b", inventory(LARGE), *wishes, "--kv-cache-dtype", "fp8", "--runtime", "sglang", "--json"
    )
    (found,) = json.loads(said.out)["hosts"]
    assert (found["runtime"], found["quantization"], found["max_model_len"]) == ("sglang", "awq", 8192)


def test_where_takes_a_config_instead_of_a_name(run, inventory, config):
    said = run("where", inventory(LARGE), "--config", config, "--json")
    assert said.code == 0
    answer = json.loads(said.out)
    assert (answer["model"], answer["hosts"][0]["fits"]) == ("mine", True)


def test_limit_leaves_other_hosts_out(run, inventory):
    said = run("where", "qwen3-8b", inventory(LITTLE, LARGE), "--limit", "lit*", "--json")
    assert [host["name"] for host in json.loads(said.out)["hosts"]] == ["little"]


def test_a_model_of_one_hosts_own_catalogue_is_known_there_only(run, inventory, tmp_path):
    lines = [f"{key} = {json.dumps(value)}" for key, value in CONFIG.items()]
    (tmp_path / "mine.toml").write_text(
        '[models.ours]\nrepo = "ours/ours"\nlicense = "ours"\nsource = "us"\ndate = "2026-11-24"\n'
        "[models.ours.config]\n" + "\n".join(lines) + "\n"
    )
    knows = ("knows", LARGE[1] | {"catalog": [str(tmp_path / "mine.toml")]})
    said = run("where", "ours", inventory(knows, LITTLE), "--json")
    assert said.code == 0
    first, second = json.loads(said.out)["hosts"]
    assert (first["name"], first["fits"], second["fits"]) == ("knows", True, False)
    assert "not in the catalogue" in second["reason"]


@pytest.mark.parametrize("name", ["[/red]", "h1[red]"])
def test_hosts_are_shown_whatever_they_are_called(run, inventory, name):
    assert name in run("where", "qwen3-8b", inventory((name, LARGE[1]))).err
    assert name in run("where", "deepseek-v3", inventory((name, LITTLE[1]))).err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("MODEL INVENTORY",)),
        (("qwen3-8b",), ("MODEL INVENTORY",)),
        (("a", "b", "c"), ("MODEL INVENTORY",)),
        (("qwen3-8b", "site.py", "--config", "x.json"), ("expected INVENTORY",)),
        (("site.py", "--config", "x.json", "--gguf", "y.gguf"), ("--config, --gguf",)),
        (("site.py", "--config", "nowhere.json"), ("nowhere.json",)),
        (("site.py", "--gguf", "nowhere.gguf"), ("nowhere.gguf",)),
        (("gpt-9", "site.py"), ("gpt-9", "known:")),
        (("qwen3-8b", "nowhere.py"), ("nowhere.py",)),
        (("qwen3-8b", "site.py", "--max-model-len", "0"), ("--max-model-len",)),
        (("qwen3-8b", "site.py", "--max-model-len", "1000", "--avg-tokens", "1000"), ("--avg-tokens",)),
        (("qwen3-8b", "site.py", "--runtime", "tgi"), ("--runtime",)),
    ],
)
def test_where_that_cannot_be_asked_exits_2(run, inventory, arguments, words):
    inventory(LARGE)
    said = run("where", *arguments)
    assert (said.code, said.out) == (2, "")
    assert all(word in said.err for word in words)


def test_a_broken_inventory_is_still_one_json_object(run, inventory):
    said = run("where", "qwen3-8b", inventory(("h1", {"gpu_tag": "z9"})), "--json")
    assert said.code == 2
    answer = json.loads(said.out)
    assert (answer["hosts"], answer["errors"][0]["host"]) == ([], "h1")


# cost


def test_cost_speaks_on_stderr_and_calls_bounds_bounds(run):
    said = run(*COST, "--currency", "EUR")
    assert (said.code, said.out) == (0, "")
    words = ("upper bounds", "at most", "50% of the bound assumed", "break-even at", "do not self-host", "EUR")
    assert all(word in said.err for word in words)
    assert all(share in said.err for share in ("10%", "50%", "100%"))


def test_cost_json_keeps_its_keys(run):
    said = run(*COST, "--json", "--concurrency", "8")
    assert (said.code, said.err) == (0, "")
    answer = json.loads(said.out)
    assert (answer["concurrency"], answer["errors"], answer["efficiency"]) == (8, [], 0.5)
    assert answer["decode_tokens_per_s_bound"] > answer["decode_tokens_per_s_bound_batch_1"] > 0
    assert [point["batch"] for point in answer["decode"]] == [1, 8]
    assert [level["utilization"] for level in answer["levels"]] == [0.1, 0.5, 1.0]
    assert answer["break_even"]["possible"] is True
    assert answer["break_even"]["tokens_per_day"] > answer["break_even"]["requests_per_s"] > 0
    served = answer["levels"][-1]["completion_tokens_per_s"]
    assert served == pytest.approx(0.5 * answer["decode_tokens_per_s_bound"], rel=1e-3)
    assert answer["cost_per_hour"] == 2


def test_power_and_the_host_are_added(run):
    more = ("--power-watts", "500", "--kwh-price", "0.4", "--host-month", "73", "--json")
    assert json.loads(run(*COST, *more).out)["cost_per_hour"] == pytest.approx(2 + 0.2 + 0.1)


def test_all_missing_prices_are_told_at_once(run):
    said = run("cost", "--model", "qwen3-8b", "--gpu", "l40s", "--power-watts", "300")
    assert (said.code, said.out) == (2, "")
    assert all(option in said.err for option in ("--gpu-hour", "--api-input", "--api-output", "--kwh-price"))


def test_everything_that_is_missing_is_told_at_once(run):
    said = run("cost", "--json")
    assert said.code == 2
    keys = [error["key"] for error in json.loads(said.out)["errors"]]
    assert keys == ["--model", "--gpu", "--gpu-hour", "--api-input", "--api-output"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        (("--gpu-hour", "-1"), "--gpu-hour"),
        (("--gpu-hour", "nan"), "--gpu-hour"),
        (("--api-input", "inf"), "--api-input"),
        (("--efficiency", "0"), "--efficiency"),
        (("--efficiency", "1.5"), "--efficiency"),
        (("--gpu", "z9"), "z9"),
        (("--model", "gpt-9"), "gpt-9"),
        (("--gpu", "apple-m4-max"), "--memory-mib"),
        (("--max-model-len", "1000"), "--max-model-len 1000"),
        (("--gpus", "0"), "--gpus"),
    ],
)
def test_cost_that_cannot_be_asked_exits_2(run, changes, word):
    said = run(*COST, *changes)
    assert (said.code, said.out) == (2, "")
    assert word in said.err


def test_what_does_not_fit_has_no_cost(run):
    said = run(*COST, "--model", "deepseek-v3", "--json")
    assert said.code == 1
    assert "GiB short" in json.loads(said.out)["errors"][0]["message"]


def test_an_unknown_bandwidth_is_said(run):
    said = run(*COST, "--model", SMALL, "--gpu", "cpu", "--memory-mib", "8192")
    assert said.code == 1
    assert "bandwidth" in said.err


def test_a_break_even_that_is_impossible_is_said_plainly(run):
    said = run(*COST, "--gpu-hour", "5000")
    assert said.code == 0
    assert "break-even is impossible" in said.err
    answer = json.loads(run(*COST, "--gpu-hour", "5000", "--json").out)
    assert answer["break_even"]["possible"] is False


def test_cost_takes_a_config(run, config):
    said = run("cost", "--config", config, "--gpu", "h100-pcie", *PRICES, "--json")
    assert (said.code, json.loads(said.out)["model"]) == (0, "mine")


def test_both_take_a_gguf_file(run, inventory, tmp_path):
    write_tiny_gguf(tmp_path / "tiny.gguf")
    said = run("where", inventory(LITTLE, LARGE), "--gguf", "tiny.gguf", "--json")
    assert said.code == 0
    assert {host["runtime"] for host in json.loads(said.out)["hosts"]} == {"llama.cpp"}
    refused = run("where", inventory(LITTLE), "--gguf", "tiny.gguf", "--runtime", "vllm")
    assert (refused.code, "GGUF" in refused.err) == (1, True)
    short = ("--avg-prompt-tokens", "100", "--avg-completion-tokens", "50")
    priced = run("cost", "--gguf", "tiny.gguf", "--gpu", "l40s", *PRICES, *short)
    assert (priced.code, "taken for a dense model" in priced.err) == (0, True)
