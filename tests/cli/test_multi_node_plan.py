"""plan and render of an instance over several hosts, as an operator runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rackserve.cli.main import main

_COMMON = {"gpu_tag": "h200", "gpu_count": 8, "os": "ubuntu-24.04", "secure_boot": False, "node_interface": "eno1"}
SERVICE = {"name": "frontier", "model": "deepseek-v3", "gpus": 8, "nodes": ["gpu02.example.org", "gpu03.example.org"]}


@pytest.fixture
def inventory(tmp_path: Path) -> str:
    hosts = [(f"gpu0{n}.example.org", _COMMON | {"node_address": f"10.0.0.{n}"}) for n in (1, 2, 3)]
    hosts[0][1]["services"] = [SERVICE]
    path = tmp_path / "site.py"
    path.write_text(f"hosts = {hosts!r}\n")
    return str(path)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def start(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["rackserve", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capfd.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return start


def test_the_head_names_its_hosts_and_they_name_their_part(run, inventory):
    code, _, said = run("plan", inventory)
    assert code == 0
    assert "and on gpu02.example.org, gpu03.example.org with vllm" in said
    for rank in (1, 2):
        assert f"part of frontier on gpu01.example.org (rank {rank} of 3), on GPU 0, 1, 2, 3, 4, 5, 6, 7" in said
    # The reasons are the head's to tell.
    assert said.count("tensor parallel 8 x pipeline parallel 3") == 1


def test_a_plan_of_one_host_is_the_same_as_that_of_all(run, inventory):
    whole = {host["name"]: host for host in json.loads(run("plan", inventory, "--json")[1])["hosts"]}
    for name, rank in (("gpu01.example.org", 0), ("gpu03.example.org", 2)):
        (host,) = json.loads(run("plan", inventory, "--json", "--limit", name)[1])["hosts"]
        assert host == whole[name]
        assert host["services"][0]["member"]["rank"] == rank


def test_a_host_is_rendered_with_its_part_by_itself(run, inventory, tmp_path):
    code, _, _ = run("render", inventory, "--limit", "gpu02.example.org", "--out", str(tmp_path / "out"))
    assert code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["gpu02.example.org"]
    drop_in = tmp_path / "out/gpu02.example.org/etc/systemd/system/rackserve@frontier.service.d/10-plan.conf"
    assert "--headless" in drop_in.read_text()
