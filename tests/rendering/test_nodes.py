"""The units of one instance on several hosts: whom each lets through, what it waits for, what systemd says of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackserve.fleet import plan_fleet
from rackserve.planning.plans import HostPlan
from rackserve.rendering import host_files
from rackserve.rendering.text import RenderedFile
from rackserve.rendering.units import unit_digest
from tests.examples import examples
from tests.rendering.units import analyze, directives, needs_systemd

UNIT = "rackserve@big.service"
RAY_UNIT = "rackserve-ray@big.service"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/10-plan.conf"
RAY_DROP_IN = f"/etc/systemd/system/{RAY_UNIT}.d/10-plan.conf"
SERVICE: dict[str, Any] = {"name": "big", "model": "llama-3.3-70b-instruct", "max_model_len": 8192, "gpus": 2}
WAYS = ("native", "ray")


def planned(count: int = 3, host: dict[str, Any] | None = None, **service: Any) -> dict[str, HostPlan]:
    """Hosts h1, h2 ... of one instance; `host` are settings of the last of them."""
    common = {"gpu_tag": "h200", "gpu_count": 4, "os": "ubuntu-24.04", "node_interface": "eno1"}
    hosts = [(f"h{number}", common | {"node_address": f"10.0.0.{number}"}) for number in range(1, count + 1)]
    hosts[0][1]["services"] = [SERVICE | {"nodes": [name for name, _ in hosts[1:]]} | service]
    hosts[-1][1].update(host or {})
    plans = plan_fleet(hosts)
    assert not [problem for plan in plans for problem in plan.errors]
    return {plan.host.name: plan for plan in plans}


def files(plan: HostPlan) -> dict[str, RenderedFile]:
    return {file.path: file for file in host_files(plan)}


def said(text: str, key: str) -> list[str]:
    return [value for _, name, value in directives(text) if name == key]


def text_of(plans: dict[str, HostPlan], host: str, path: str = DROP_IN) -> str:
    return files(plans[host])[path].text


def facts(plans: dict[str, HostPlan], host: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(text_of(plans, host, "/etc/rackserve/services/big.json"))
    return told


@pytest.fixture(scope="module", params=WAYS)
def instance(request) -> dict[str, HostPlan]:
    return planned(distributed=request.param, listen="10.1.0.1", allow_from=["10.1.0.0/16"])


@pytest.fixture
def native() -> dict[str, HostPlan]:
    return planned(distributed="native")


@pytest.fixture
def with_ray() -> dict[str, HostPlan]:
    return planned(distributed="ray")


# Whom it lets through


def test_clients_get_through_to_the_head_and_hosts_of_the_instance_to_each_other(instance):
    everybody = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    allowed = {host: said(text_of(instance, host), "IPAddressAllow") for host in instance}
    assert allowed == {
        "h1": ["", "localhost", "10.1.0.1", "10.1.0.0/16", *everybody],
        "h2": ["", "localhost", *everybody],
        "h3": ["", "localhost", *everybody],
    }


def test_rays_node_beside_the_head_lets_its_hosts_through_and_no_clients(with_ray):
    allowed = said(text_of(with_ray, "h1", RAY_DROP_IN), "IPAddressAllow")
    assert allowed == ["", "localhost", "10.0.0.1", "10.0.0.2", "10.0.0.3"]


@examples(25)
@given(st.integers(2, 12), st.sampled_from(WAYS))
def test_no_peer_is_lost_and_nobody_else_is_let_through(count, way):
    plans = planned(count, distributed=way, model="qwen3-8b", gpus=1)
    addresses = {f"10.0.0.{number}" for number in range(1, count + 1)}
    for host in plans:
        units = [path for path in files(plans[host]) if path.endswith("10-plan.conf")]
        # The service, what asks whether it compiles, and Ray's node beside the head.
        assert len(units) == (3 if (host, way) == ("h1", "ray") else 2)
        for path in units:
            assert set(said(text_of(plans, host, path), "IPAddressAllow")) == {"", "localhost", *addresses}


# How it starts, and what becomes of it


def test_only_the_head_waits_for_an_answer_and_drains(instance):
    for host in instance:
        waits = said(text_of(instance, host), "ExecStartPost") + said(text_of(instance, host), "ExecStop")
        # Empty: that of the base unit is taken back.
        assert waits == ([] if host == "h1" else ["", ""])
    base = files(instance["h1"])["/etc/systemd/system/rackserve@.service"].text
    assert len(said(base, "ExecStartPost")) == len(said(base, "ExecStop")) == 1


def test_every_part_begins_anew_whatever_it_ended_with(instance):
    for host in instance:
        (limit,) = said(text_of(instance, host), "StartLimitIntervalSec")
        # A head that fails has a limit, as services on one host have.
        assert (limit == "0") == (host != "h1")


def test_a_service_on_one_host_is_left_as_it_is():
    text = text_of(planned(1, nodes=[]), "h1")
    for key in ("Restart", "ExecStartPost", "ExecStop", "Requires"):
        assert said(text, key) == []


def test_a_part_without_clients_has_no_key_and_says_so_to_the_health_check(native):
    head, part = facts(native, "h1"), facts(native, "h2")
    assert (head["url"], head["joins"]) == ("http://127.0.0.1:8001", None)
    assert (part["url"], part["joins"], part["key_file"], part["metrics"]) == (None, "10.0.0.1:29501", None, None)
    assert said(text_of(native, "h1"), "LoadCredential") != []
    assert said(text_of(native, "h2"), "LoadCredential") == []
    assert "--key" not in text_of(native, "h2")


def test_a_node_of_ray_looks_after_its_head_itself(with_ray):
    assert (facts(with_ray, "h2")["url"], facts(with_ray, "h2")["joins"]) == (None, None)


def test_ray_comes_before_the_head_and_goes_after_it(with_ray):
    head, ray = text_of(with_ray, "h1"), text_of(with_ray, "h1", RAY_DROP_IN)
    for key in ("Requires", "After", "JoinsNamespaceOf"):
        assert said(head, key) == [RAY_UNIT]
    assert said(ray, "PartOf") == [UNIT]
    assert said(ray, "StopWhenUnneeded") == ["yes"]
    assert said(ray, "DeviceAllow") == said(head, "DeviceAllow")
    assert said(ray, "LoadCredential") == []
    assert said(ray, "SuccessExitStatus") == said(text_of(with_ray, "h2"), "SuccessExitStatus") == ["1"]
    assert files(with_ray["h1"])[f"/etc/systemd/system/{RAY_UNIT}"].text.count("rackserve-%i") >= 2
    assert RAY_DROP_IN not in files(with_ray["h2"])


# The digest


@pytest.mark.parametrize(
    ("host", "service"),
    [
        ({"node_address": "10.0.0.9"}, {}),
        ({"services": [{"name": "a", "model": "qwen3-8b", "max_model_len": 8192, "gpus": [0]}]}, {}),
        ({}, {"distributed": "ray"}),
        ({}, {"max_model_len": 4096}),
    ],
)
def test_what_changes_one_part_changes_the_digest_of_all(host, service):
    # A head that went on would have a part under it that began anew.
    before, after = planned(), planned(host=host, **service)
    digests = [{unit_digest(part) for part in plan.gpu_services if part.name == "big"} for plan in before.values()]
    for plan, old in zip(after.values(), digests, strict=True):
        assert old.isdisjoint(unit_digest(part) for part in plan.gpu_services)


def test_a_change_of_rays_unit_changes_the_heads_digest(with_ray):
    (service,) = with_ray["h1"].gpu_services
    ray = text_of(with_ray, "h1", RAY_DROP_IN)
    assert f"RACKSERVE_DIGEST={unit_digest(service)}" in ray
    assert unit_digest(service) in text_of(with_ray, "h1")


# systemd's own tools


@pytest.fixture(scope="module")
def root(instance, tmp_path_factory) -> dict[str, Path]:
    """Each host's files, and stubs for what the host brings."""
    roots = {}
    for host, plan in instance.items():
        roots[host] = tmp_path_factory.mktemp(host)
        stubs = [
            RenderedFile(f"/opt/rackserve/current/vllm/bin/{name}", "#!/bin/sh\n", "755") for name in ("vllm", "ray")
        ]
        stubs += [
            RenderedFile(f"/etc/systemd/system/{name}", f"[Unit]\nDescription={name}\n[Service]\nExecStart=/bin/true\n")
            for name in ("gpu-ready.service",)
        ]
        stubs += [
            RenderedFile(f"/etc/systemd/system/{name}.target", f"[Unit]\nDescription={name}\n")
            for name in ("sysinit", "basic", "shutdown", "multi-user", "network-online", "timers")
        ]
        stubs.append(RenderedFile("/bin/true", "#!/bin/sh\n", "755"))
        for file in [*files(plan).values(), *stubs]:
            path = roots[host] / file.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text, encoding="utf-8")
            path.chmod(int(file.mode, 8))
    return roots


def units(folder: Path) -> list[str]:
    return [unit for unit in (UNIT, RAY_UNIT) if (folder / f"etc/systemd/system/{unit}.d").is_dir()]


@needs_systemd
def test_systemd_verifies_every_unit_of_an_instance_without_a_word(root):
    for folder in root.values():
        done = analyze(f"--root={folder}", "verify", *units(folder), cwd=folder)
        assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_systemd_rates_the_exposure_of_every_unit_of_an_instance_at_most_2(root):
    for folder in root.values():
        for unit in units(folder):
            done = analyze("security", f"--root={folder}", "--offline=yes", "--threshold=20", unit, cwd=folder)
            assert done.returncode == 0, done.stdout[-300:]


@needs_systemd
def test_systemd_takes_the_name_of_the_interface_as_it_is(root):
    shown = analyze(f"--root={root['h2']}", "verify", UNIT, cwd=root["h2"], debug=True).stdout
    assert re.search(r"NCCL_SOCKET_IFNAME==eno1\b", shown)
    assert "Restart: always" in shown
