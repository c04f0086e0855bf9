"""Limits that checks hold hosts to, as systemd and ssh are told them."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from rackserve.checks import findings, host


class Told:
    """A host that answers a command after so many seconds, and whose unit is so exposed, in tenths."""

    def __init__(self, seconds: float = 0, exposure: int = 0) -> None:
        self.seconds, self.exposure = seconds, exposure

    def run(self, command: str, *_: str) -> Any:
        limit = re.match(r"timeout (\d+) ", command)
        threshold = re.search(r"--threshold=(\d+)", command)
        late = limit is not None and int(limit[1]) < self.seconds
        exposed = threshold is not None and int(threshold[1]) < self.exposure
        return SimpleNamespace(rc=int(late or exposed), stdout="→ Overall exposure level: 2.0", stderr="")

    def service(self, _unit: str) -> Any:
        return SimpleNamespace(systemd_properties={}, is_running=True, is_enabled=True)


@pytest.mark.parametrize(
    ("container", "exposure", "right"), [(None, 20, True), (None, 21, False), ("x", 40, True), ("x", 41, False)]
)
def test_a_unit_is_exposed_by_2_0_at_most_and_a_containers_by_4_0(monkeypatch, container, exposure, right):
    monkeypatch.setattr(host, "_active", lambda *_: findings.Finding("timer", True, "", ""))
    monkeypatch.setattr(host, "_process", lambda *_: iter(()))
    launch = SimpleNamespace(container=container, memory_max_mib=None, companion=None)
    plan = SimpleNamespace(unit="rackserve@x.service", name="x", launch=launch)
    found: list[Any] = list(host._unit(Told(exposure=exposure), plan))  # type: ignore[arg-type]
    (rated,) = [entry for entry in found if entry.check.startswith("exposure")]
    assert rated.ok is right
    assert rated.expected == ("at most 4.0" if container else "at most 2.0")


@pytest.mark.parametrize(("seconds", "right"), [(120, True), (121, False)])
def test_a_completion_may_take_two_minutes(seconds, right):
    assert host._answers(Told(seconds), SimpleNamespace(name="x")).ok is right  # type: ignore[arg-type]


def test_ssh_has_10_seconds_to_connect():
    assert "    ConnectTimeout 10\n" in findings.ssh_config("h1", {}, "/run/x")
