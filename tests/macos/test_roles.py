"""The roles for Macs on hosts that only pretend: order, refusals, silence where there is nothing to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.exceptions import PyinfraError

from rackserve.rendering import host_files
from rackserve.rendering.launchd import daemon_digest
from tests.macos.box import MacBox, sent
from tests.macos.planning import data_of, host_plan_of
from tests.roles.fakes import Run, bare, deploy

LINUX = "id=debian\ncodename=forky\narch=x86_64\nglibc=glibc 2.43\nmem_kib=8388608\ninit=systemd\nflags=avx2"
CPU = {"gpu_tag": "cpu", "memory_mib": 8192, "services": [{"name": "chat", "model": "smollm2-135m-instruct"}]}
ORDER = [
    "Mac services | Releases for macOS there",
    "Mac services | Services that are not planned gone",
    "Mac services | Release of the runtime current",
    "Mac services | Model in place",
    "Mac services | Service user present",
    "Mac services | API key in place",
    "Mac services | Daemons and helpers as planned",
    "Mac services | Links beside them as planned",
    "Mac services | Service serving its plan",
]
OLLAMA = {"name": "second", "model": "qwen3-0.6b", "runtime": "ollama", "port": 9000}


@pytest.fixture
def serve(tmp_path: Path, monkeypatch):
    def run(role: str, hosts: dict[str, tuple[dict[str, Any], Any]]) -> Run:
        script = tmp_path / f"{role}.py"
        script.write_text(f"from roles.{role} import {role}\n\n{role}()\n")
        data = {name: {"_sudo": True} | data for name, (data, _) in hosts.items()}
        return deploy(str(script), data, {name: answers for name, (_, answers) in hosts.items()}, monkeypatch)

    return run


def told(run: Run, name: str = "mac1") -> list[tuple[str, ...]]:
    return [sent(command) for command in run.changes[name]]


def verbs(run: Run, name: str = "mac1") -> list[str]:
    return [words[0] for words in told(run, name)]


def test_a_virgin_mac_gets_what_it_lacks_in_order_and_nothing_the_second_time(serve):
    box, data = MacBox(), data_of({}, OLLAMA)
    run = serve("mac_services", {"mac1": (data, box)})
    assert run.failed == set()
    assert [names for names in run.names if len(names) != 1] == []
    assert list(dict.fromkeys(name for names in run.names for name in names)) == ORDER
    assert list(dict.fromkeys(verbs(run))) == [
        *("fetch-mac.sh", "release-mac.sh", "rm", "activate-mac.sh"),
        *("user-mac.sh", "install", "key", "write", "link", "load-mac.sh"),
    ]
    plan = host_plan_of({}, OLLAMA)
    assert box.loaded == {service.name: daemon_digest(service) for service in plan.gpu_services}
    written = {path: (text, mode) for path, (text, mode, owner) in box.files.items() if owner == "root:wheel"}
    assert written == {file.path: (file.text, file.mode) for file in host_files(plan)}
    again = serve("mac_services", {"mac1": (data, box)})
    assert (again.failed, told(again)) == (set(), [])


def test_a_changed_plan_loads_the_service_that_changed_alone(serve):
    box = MacBox()
    serve("mac_services", {"mac1": (data_of({}, OLLAMA), box)})
    run = serve("mac_services", {"mac1": (data_of({"concurrency": 2}, OLLAMA), box)})
    assert verbs(run) == ["write", "write", "load-mac.sh"]
    assert told(run)[-1] == ("load-mac.sh", "", "chat", "50")


def test_a_service_that_is_not_planned_any_more_goes_and_its_model_stays(serve):
    box = MacBox()
    serve("mac_services", {"mac1": (data_of({}, OLLAMA), box)})
    run = serve("mac_services", {"mac1": (data_of(OLLAMA), box)})
    assert told(run) == [("remove-mac.sh", "", "chat", "60")]
    assert set(box.loaded) == {"second"}
    assert [path for path in box.sizes if "8B" in path]


@pytest.mark.parametrize(
    ("broken", "sent_again"),
    [
        ("load-mac.sh", ["load-mac.sh"]),
        ("activate-mac.sh", ["activate-mac.sh", "fetch-mac.sh", "user-mac.sh", "install", "install", "key"]),
        ("key", ["install", "install", "key"]),
    ],
)
def test_a_run_that_broke_off_is_simply_run_again(serve, broken, sent_again):
    box = MacBox(fails=broken)
    with pytest.raises(PyinfraError, match="No hosts remaining"):
        serve("mac_services", {"mac1": (data_of(), box)})
    box.fails = ""
    run = serve("mac_services", {"mac1": (data_of(), box)})
    assert run.failed == set()
    assert verbs(run)[: len(sent_again)] == sent_again
    assert told(serve("mac_services", {"mac1": (data_of(), box)})) == []


def test_a_key_or_a_release_that_came_after_the_process_began_is_loaded(serve):
    box = MacBox()
    serve("mac_services", {"mac1": (data_of(), box)})
    box.key_changed = 999
    assert verbs(serve("mac_services", {"mac1": (data_of(), box)})) == ["load-mac.sh"]


def test_a_mac_without_a_release_is_not_changed_and_other_hosts_go_on(serve):
    good, bad = MacBox(), MacBox()
    data = data_of() | {"llamacpp_install": "build"}
    run = serve("mac_services", {"mac1": (data_of(), good), "mac2": (data, bad)})
    assert run.failed == {"mac2"}
    ((verb, sentence),) = told(run, "mac2")
    assert verb == "refuse"
    assert "set llamacpp_archive_url" in sentence
    assert set(good.loaded) == {"chat"}


def test_other_hosts_are_not_touched(serve):
    mac = MacBox()
    run = serve("mac_services", {"h1": (CPU, bare(LINUX)), "mac1": (data_of(), mac)})
    assert run.operations["h1"] == []
    assert run.changes["h1"] == []
    assert run.failed == set()


def test_uninstalling_leaves_models_and_nothing_else(serve):
    box = MacBox()
    serve("mac_services", {"mac1": (data_of({}, OLLAMA), box)})
    run = serve("mac_uninstall", {"mac1": (data_of(), box), "h1": (CPU, bare(LINUX))})
    assert run.failed == set()
    assert run.changes["h1"] == []
    assert told(run)[:2] == [("remove-mac.sh", "", "chat", "60"), ("remove-mac.sh", "", "second", "60")]
    assert (box.files, box.links, box.releases, box.loaded, box.accounts) == ({}, {}, {}, {}, set())
    assert sorted(box.sizes) == sorted(path for path in box.sizes if path.startswith("/opt/models/"))
    assert box.sizes
    assert told(serve("mac_uninstall", {"mac1": (data_of(), box)})) == []
