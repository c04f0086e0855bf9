"""Limits of what the command line takes and waits for: at the number and one step beyond it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from rackserve.cli import common, cost, main
from rackserve.domain.errors import InputError
from rackserve.keys import read_api_key, read_hub_token
from rackserve.rollout import inventory


@pytest.mark.parametrize(("mib", "taken"), [(63, False), (64, True), (64 * 2**20, True), (64 * 2**20 + 1, False)])
def test_a_host_has_64_mib_to_64_tib(mib, taken):
    try:
        assert common.MEMORY_MIB.convert(str(mib), None, None) == mib
        assert taken
    except click.BadParameter:
        assert not taken


@pytest.mark.parametrize(("price", "taken"), [(10.0**12, True), (10.0**12 + 1, False), (float("inf"), False)])
def test_a_price_is_10_to_the_12_at_most(price, taken):
    options: dict[str, Any] = dict.fromkeys([*cost._PRICES, "avg_tokens", "max_model_len"])
    options |= {"gpu_hour": price, "api_input": 1.0, "api_output": 1.0, "efficiency": 0.5}
    options |= {"prompt": 1, "completion": 1}
    assert any("expected 0 to" in str(problem) for problem in cost._number_problems(options)) is not taken


def test_half_of_the_bound_is_taken_to_be_reached_where_nobody_said_how_much():
    (option,) = [parameter for parameter in cost.cost.params if parameter.name == "efficiency"]
    assert option.get_default(click.Context(cost.cost)) == 0.5


def test_an_interrupted_command_ends_as_a_shell_says_it(monkeypatch):
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main.cli, "main", interrupted)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 128 + 2


@pytest.mark.parametrize(("seconds", "read"), [(120, True), (120.1, False)])
def test_an_inventory_has_two_minutes_to_be_read(monkeypatch, tmp_path, seconds, read):
    def run(command: list[str], timeout: float, **_: object) -> subprocess.CompletedProcess[str]:
        if timeout < seconds:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, 1, "", "broken")

    (tmp_path / "inventory.py").write_text("")
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(InputError) as caught:
        inventory.read_inventory(str(tmp_path / "inventory.py"))
    assert ("could not be read within" in str(caught.value)) is not read


@pytest.mark.parametrize(
    ("reader", "length", "taken"),
    [
        (read_api_key, 7, False),
        (read_api_key, 8, True),
        (read_api_key, 512, True),
        (read_api_key, 513, False),
        (read_hub_token, 7, False),
        (read_hub_token, 4096, True),
        (read_hub_token, 4097, False),
    ],
)
def test_keys_have_8_to_512_characters_and_tokens_to_4096(tmp_path: Path, reader, length, taken):
    (tmp_path / "key").write_text("k" * length)
    try:
        assert reader(str(tmp_path / "key")) == "k" * length
        assert taken
    except ValueError:
        assert not taken
