"""The main job on a real bare host, read back with testinfra: it serves, is as rendered, and changes as planned."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testinfra.host import Host as CheckedHost

from rackserve.checks.findings import connected
from rackserve.lab.lab import Lab
from tests.lab.conftest import LabFactory
from tests.lab.deploying import Run, Site, main_pid, serves

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def bare(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Site:
    lab = lab_factory("serve")
    lab.up(1, "forky")
    return Site(lab, tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def first(bare: Site) -> Run:
    return bare.deploy()


@pytest.fixture(scope="module")
def site(bare: Site, first: Run) -> Site:
    assert first.code == 0, first.text
    return bare


@pytest.fixture
def host(site: Site) -> Iterator[CheckedHost]:
    with connected("h1", site.hosts["h1"]) as connection:
        yield connection


def test_run_ends_with_the_address_of_the_endpoint(first: Run, site: Site) -> None:
    address = f"http://{site.lab.address('h1')}:8001/v1"
    assert address in "\n".join(first.text.splitlines()[-3:])


def test_unit_is_running_enabled_and_hardened(host: CheckedHost) -> None:
    unit = host.service("rackserve@chat.service")
    assert unit.is_running
    assert unit.is_enabled
    assert host.run("systemd-analyze security --no-pager --threshold=20 rackserve@chat.service").rc == 0
    pid = unit.systemd_properties["MainPID"]
    status = host.file(f"/proc/{pid}/status").content_string
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert "CapBnd:\t0000000000000000" in status


def test_service_sees_neither_the_credentials_folder_nor_a_writable_system(host: CheckedHost) -> None:
    pid = host.service("rackserve@chat.service").systemd_properties["MainPID"]
    inside = f"nsenter --target {pid} --mount --setuid $(id -u rackserve-chat) --setgid $(id -g rackserve-chat) "
    assert host.run(f"{inside} ls /etc/rackserve/credentials").rc != 0
    assert host.run(f"{inside} touch /usr/bin/x /etc/x /srv/models/x").rc != 0


def test_completion_needs_the_key_and_comes_from_the_planned_model(site: Site) -> None:
    url = f"http://{site.lab.address('h1')}:8001/v1/chat/completions"
    key = site.lab.ssh("h1", "cat /etc/rackserve/credentials/chat/api-key").stdout.strip()
    assert _post(url, "") == (401, {})
    assert _post(url, "sk-guessed") == (401, {})
    status, answer = _post(url, key)
    assert status == 200
    assert answer["model"] == "chat"
    assert answer["usage"]["completion_tokens"] == 5


def test_render_is_byte_for_byte_what_is_installed(site: Site, host: CheckedHost, tmp_path: Path) -> None:
    done = site.rackserve("render", str(site.write()), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    rendered = [path for path in (tmp_path / "out" / "h1").rglob("*") if path.is_file()]
    assert len(rendered) == 11
    for path in rendered:
        installed = host.file(f"/{path.relative_to(tmp_path / 'out' / 'h1')}")
        assert installed.content == path.read_bytes()
        assert installed.mode == path.stat().st_mode & 0o777
    ours = host.run(
        "find /etc/systemd/system /usr/libexec/rackserve /etc/rackserve/services -type f -newer /etc/hostname"
    ).stdout.split()
    assert sorted(ours) == sorted(f"/{path.relative_to(tmp_path / 'out' / 'h1')}" for path in rendered)


def test_verify_agrees_and_notices_what_is_not_as_planned(site: Site) -> None:
    good = site.rackserve("verify", str(site.write()), "--json")
    assert good.returncode == 0, good.stderr
    assert all(finding["ok"] for finding in json.loads(good.stdout)["hosts"][0]["findings"])
    site.lab.ssh("h1", "echo >> /usr/libexec/rackserve/drain; chmod 644 /etc/rackserve/credentials/chat/api-key")
    bad = site.rackserve("verify", str(site.write()), "--json")
    wrong = [entry["check"] for entry in json.loads(bad.stdout)["hosts"][0]["findings"] if not entry["ok"]]
    assert bad.returncode == 1
    assert wrong == ["/usr/libexec/rackserve/drain as planned", "API key readable by root only"]
    mended = site.deploy()
    assert [name.partition(" | ")[2] for name in mended.changed("h1")] == [
        "API key in place",
        "Units and helpers as planned",
        "Service serving its plan",
    ]
    assert site.rackserve("verify", str(site.write())).returncode == 0


def test_changed_plan_restarts_once_with_the_new_numbers(site: Site, host: CheckedHost) -> None:
    site.hosts["h1"]["services"][0]["concurrency"] = 3
    site.hosts["h1"]["services"][0]["max_model_len"] = 1024
    assert [name.partition(" | ")[2] for name in site.deploy().changed("h1")] == [
        "Units and helpers as planned",
        "Service serving its plan",
    ]
    pid = host.service("rackserve@chat.service").systemd_properties["MainPID"]
    argv = host.file(f"/proc/{pid}/cmdline").content_string.split("\0")
    assert argv[argv.index("--ctx-size") + 1] == "3072"
    assert argv[argv.index("--parallel") + 1] == "3"
    assert site.deploy().changed("h1") == []


def test_service_taken_out_of_the_inventory_is_stopped_and_removed(site: Site, host: CheckedHost) -> None:
    services = site.hosts["h1"]["services"]
    services.append({**services[0], "name": "second", "max_model_len": 512, "port": 8002})
    assert site.deploy().code == 0
    assert host.service("rackserve@second.service").is_running
    before = main_pid(site.lab, "h1")
    del services[-1]
    assert [name.partition(" | ")[2] for name in site.deploy().changed("h1")] == ["Services that are not planned gone"]
    assert not host.service("rackserve@second.service").is_running
    assert not host.user("rackserve-second").exists
    assert main_pid(site.lab, "h1") == before


def test_crashed_server_comes_back_by_itself(site: Site) -> None:
    before = main_pid(site.lab, "h1")
    site.lab.ssh("h1", f"kill -KILL {before[0]}")
    _until(lambda: main_pid(site.lab, "h1")[0] not in ("0", before[0]) and serves(site.lab, "h1"), site.lab)
    assert site.deploy().changed("h1") == []


def test_service_is_there_again_after_a_power_cut(site: Site) -> None:
    site.lab.kill("h1")
    site.lab.boot("h1")
    site.lab.wait("h1")
    assert site.deploy().changed("h1") == []
    assert serves(site.lab, "h1")


def _post(url: str, key: str) -> tuple[int, dict[str, object]]:
    body = {"model": "chat", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Authorization": f"Bearer {key}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, {}


def _until(condition: Callable[[], bool], lab: Lab, seconds: int = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.2)
    pytest.fail(lab.ssh("h1", "systemctl status rackserve@chat; journalctl -n 30 --no-pager", check=False).stdout)
