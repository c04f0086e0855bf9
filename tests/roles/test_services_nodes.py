"""roles/services.py on hosts that only pretend, with an instance over several: order, and what a run leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
from pyinfra.api.exceptions import PyinfraError

from rackserve.fleet import plan_fleet
from rackserve.rendering.units import unit_digest
from tests.roles.fakes import Answers, Command, FailedError, Run, bare, deploy

SERVICE = {"name": "big", "model": "qwen3-8b", "max_model_len": 8192, "nodes": ["@fake/h1"]}
OTHER = {"name": "other", "model": "qwen3-8b", "max_model_len": 8192}
START, STOP, CHECK, ACTIVATE = "start.sh UNIT", "stop.sh UNIT", "compile-check.sh CHECK", "activate.sh RELEASE"
NODE = """id=ubuntu
version=24.04
codename=noble
arch=x86_64
glibc=glibc 2.39
mem_kib=99999999
init=systemd
python=Python 3.12.3"""


def hosts(**changes: Any) -> dict[str, dict[str, Any]]:
    """h2 is the head and h1, which pyinfra comes to first, has a part."""
    common = {"gpu_tag": "h200", "gpu_count": 2, "os": "ubuntu-24.04", "node_interface": "eno1", "_sudo": True}
    return {
        "h1": common | {"node_address": "10.0.0.1", "services": [OTHER]},
        "h2": common | {"node_address": "10.0.0.2", "services": [SERVICE]},
    } | changes


def digests(data: dict[str, dict[str, Any]]) -> dict[tuple[str, str], str]:
    plans = plan_fleet((f"@fake/{name}", entry) for name, entry in data.items())
    return {
        (plan.host.name.removeprefix("@fake/"), service.name): unit_digest(service)
        for plan in plans
        for service in plan.gpu_services
    }


class Fleet:
    """What all hosts were sent, in one order. running: digests of the units that run. broken: no more users there.

    refused: what is planned there does not compile. unstoppable: nothing stops there. node: what hosts are.
    """

    def __init__(self, monkeypatch: Any, tmp_path: Any) -> None:
        self.sent: list[tuple[str, str, str]] = []
        self.running: dict[tuple[str, str], str] = {}
        self.broken, self.refused, self.unstoppable, self.node = "", "", "", ""
        self.script = tmp_path / "services.py"
        self.script.write_text("from roles.services import services\n\nservices()\n")
        self.monkeypatch = monkeypatch

    def answers(self, host: str) -> Answers:
        def answer(command: Command) -> str | None:
            service = next((name for name in ("big", "other") if f"rackserve@{name}.service" in command), "")
            if command.fact == "Unit":
                return self.unit(host, service)
            kind = next((mark for mark in (START, STOP, CHECK, ACTIVATE) if f"# {mark}" in command.stdin), "")
            if kind:
                self.sent.append((host, kind.split(".")[0], service))
            if self.refused == host and kind == CHECK:
                raise FailedError("nvcc stopped")
            if self.unstoppable == host and kind == STOP:
                raise FailedError("still there")
            if self.broken == host and not command.fact and "useradd" in command:
                raise FailedError("no more users")
            return bare(self.node)(command)

        return answer

    def unit(self, host: str, service: str) -> str:
        if (host, service) not in self.running:
            return "ActiveState=inactive"
        shown = "ActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no\nMainPID=7\nexe=/p\nprogram=/p"
        return f"{shown}\nkey=current\nwatch=current\nRACKSERVE_DIGEST={self.running[host, service]}"

    def serve(self, data: dict[str, dict[str, Any]]) -> Run:
        return deploy(str(self.script), data, {name: self.answers(name) for name in data}, self.monkeypatch)


@pytest.fixture
def fleet(monkeypatch, tmp_path) -> Fleet:
    return Fleet(monkeypatch, tmp_path)


def test_parts_are_started_before_their_head_is_waited_for(fleet):
    run = fleet.serve(hosts())
    assert run.failed == set()
    assert fleet.sent[0] == ("h1", "start", "big")
    assert set(fleet.sent[1:]) == {("h1", "start", "other"), ("h2", "start", "big")}


def test_a_head_that_is_to_change_rests_before_its_parts_are_touched(fleet):
    fleet.running = dict.fromkeys(digests(hosts()), "old")
    fleet.serve(hosts())
    assert [entry for entry in fleet.sent if entry[2] == "big"] == [
        ("h2", "stop", "big"),
        ("h1", "start", "big"),
        ("h2", "start", "big"),
    ]


def test_an_instance_that_is_as_planned_is_left_alone(fleet):
    fleet.running = digests(hosts())
    fleet.serve(hosts())
    assert fleet.sent == []


def test_a_part_that_is_gone_is_started_under_a_head_that_goes_on(fleet):
    fleet.running = digests(hosts())
    del fleet.running["h1", "big"]
    fleet.serve(hosts())
    assert fleet.sent == [("h1", "start", "big")]


def test_a_head_is_not_touched_where_one_of_its_hosts_failed(fleet):
    # pyinfra ends a run that has no host left.
    data = hosts(h3=hosts()["h1"] | {"node_address": "10.0.0.3"})
    fleet.running, fleet.broken = dict.fromkeys(digests(data), "old"), "h1"
    run = fleet.serve(data)
    assert run.failed == {"h1", "h2"}
    assert fleet.sent == [("h3", "start", "other")]
    assert "@fake/h1 failed in this run" in run.changes["h2"][-1]


def spread_twice() -> dict[str, dict[str, Any]]:
    """h2 has the head of one instance and a part of another, whose head is h3; h4 has nothing to do with them."""
    common = {key: value for key, value in hosts()["h1"].items() if key != "services"} | {"gpu_count": 4}
    sharing = {"gpus": 2}
    services = {
        "h1": [],
        "h2": [SERVICE | sharing],
        "h3": [SERVICE | sharing | {"name": "far", "nodes": ["@fake/h2"], "port": 8100}],
        "h4": [OTHER],
    }
    return {
        name: common | {"node_address": f"10.0.0.{number}", "services": services[name]}
        for number, name in enumerate(services, start=1)
    }


@pytest.mark.parametrize("refused", ["h1", "h2", "h3"])
def test_where_one_hosts_release_does_not_compile_the_whole_instance_goes_on_as_it_was(fleet, refused):
    data = spread_twice()
    fleet.running, fleet.refused, fleet.node = dict.fromkeys(digests(data), "old"), refused, NODE
    run = fleet.serve(data)
    assert run.failed == {"h1", "h2", "h3"}
    assert {entry for entry in fleet.sent if entry[1] != "compile-check"} == {
        ("h4", "activate", ""),
        ("h4", "start", "other"),
    }
    for name in run.failed - {refused}:
        assert f"@fake/{refused} failed in this run" in run.changes[name][-1]


def test_where_every_hosts_release_compiles_all_of_them_become_current_before_anything_rests(fleet):
    fleet.running, fleet.node = dict.fromkeys(digests(hosts()), "old"), NODE
    assert fleet.serve(hosts()).failed == set()
    kinds = [kind for _, kind, service in fleet.sent if service in {"big", ""}]
    assert kinds == ["compile-check"] * 2 + ["activate"] * 2 + ["stop", "start", "start"]


def test_a_part_is_not_touched_where_its_head_failed_after_that(fleet):
    data = hosts(h3=hosts()["h1"] | {"node_address": "10.0.0.3"})
    fleet.running, fleet.unstoppable = dict.fromkeys(digests(data), "old"), "h2"
    run = fleet.serve(data)
    assert run.failed == {"h1", "h2"}
    assert fleet.sent == [("h2", "stop", "big"), ("h3", "start", "other")]


def test_what_does_not_fit_together_stops_the_run(fleet):
    with pytest.raises(PyinfraError, match="is no host of the inventory"):
        fleet.serve(hosts(h2=hosts()["h2"] | {"services": [SERVICE | {"nodes": ["@fake/h9"]}]}))
