"""Ollama under its own unit: refused where it holds what a plan needs, told of where it may come to."""

from __future__ import annotations

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.facts.vendor_server import parse_vendor_server
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import HostPlan
from rackserve.planning.vendor_server import VendorServer, clashes
from rackserve.settings import load_hosts


def plan_of(**changes: object) -> HostPlan:
    service = {"name": "chat", "model": "qwen3-8b", "runtime": "ollama", "max_model_len": 4096}
    data = {"gpu_tag": "l40s", "services": [service | changes]}
    (plan,) = plan_hosts(load_hosts([("h1", data)]), load_catalog())
    assert plan.errors == ()
    return plan


def test_no_such_server_is_nothing_to_tell():
    assert clashes(plan_of(), None) == ([], [])


def test_a_server_on_its_own_port_without_a_model_is_told_of():
    problems, (warning,) = clashes(plan_of(), VendorServer(11434, 0))
    assert problems == []
    assert "ollama.service is active" in warning


def test_a_server_on_a_planned_port_is_refused_with_service_port_and_way_out():
    (problem,), warnings = clashes(plan_of(port=11434), VendorServer(11434, 0))
    assert warnings == []
    assert problem.startswith("chat is planned for port 11434, where ollama.service listens")
    assert "systemctl disable --now ollama.service" in problem


def test_a_server_with_a_model_on_the_gpus_is_refused_with_how_much():
    (problem,), _ = clashes(plan_of(), VendorServer(11434, 5320))
    assert "holds 5320 MiB of the GPUs" in problem


@pytest.mark.parametrize(
    ("environment", "port"),
    [
        ("", 11434),
        ("PATH=/usr/bin", 11434),
        ("PATH=/usr/bin OLLAMA_HOST=0.0.0.0", 11434),
        ("PATH=/usr/bin OLLAMA_HOST=0.0.0.0:8001", 8001),
        ("OLLAMA_HOST=http://127.0.0.1:8001/ PATH=/usr/bin", 8001),
        ('"OLLAMA_HOST=[::1]:8001" PATH=/usr/bin', 8001),
        ("OLLAMA_HOST=:8001", 8001),
    ],
)
def test_its_port_is_the_one_that_its_unit_states(environment, port):
    assert parse_vendor_server(["ActiveState=active", f"Environment={environment}"]) == VendorServer(port, 0)


def test_memory_counts_that_its_own_processes_hold():
    lines = ["ActiveState=active", "Environment=", "pid=70", "pid=71", "app=71, 5000", "app=70, 320", "app=9, 7000"]
    assert parse_vendor_server(lines) == VendorServer(11434, 5320)
    assert parse_vendor_server([*lines[:4], "app=71, [N/A]", "app="]) == VendorServer(11434, 0)


@pytest.mark.parametrize("lines", [[], ["ActiveState=inactive", "Environment="], ["ActiveState=failed"]])
def test_one_that_is_not_active_holds_nothing(lines):
    assert parse_vendor_server(lines) is None
