"""LM Studio's llmster on a host with a card: in the foreground under a unit of ours, with the model that is planned.

What is installed is a stand-in that behaves as public notes describe llmster and `lms`; see rackserve/lab/standins.
"""

from __future__ import annotations

import pytest

from rackserve.lab.runtime_archives import llmster_archive
from tests.lab import shortened
from tests.lab.archive_sites import HOST, LOOPBACK, WAY, ArchiveSite, driven, stopped_under_a_stream
from tests.lab.conftest import LabFactory
from tests.lab.deploying import main_pid, serves
from tests.lab.talking import wait_for

pytestmark = pytest.mark.lab

OLDER, VERSION = "0.0.23-1", "0.0.25-1"
HOME = "/var/lib/rackserve/chat"
CHANGES = [
    "LM Studio | Packages for LM Studio installed",
    "LM Studio | Release of LM Studio current",
    "Models | Model in place",
    "Services | Service user present",
    "Services | Units and helpers as planned",
    "Services | Service serving its plan",
]


@pytest.fixture(scope="module")
def site(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> ArchiveSite:
    made = driven(lab_factory("lmstudio"), tmp_path_factory.mktemp("lmstudio"), "lmstudio")
    offer(made, OLDER)
    return made


def offer(site: ArchiveSite, version: str) -> str:
    archive = site.lab.depot_dir / WAY / f"llmster-{version}.tar.gz"
    if not archive.exists():
        llmster_archive(archive, version)
    return site.offer(version, archive, "sha512")


def test_without_its_terms_accepted_nothing_is_changed(site: ArchiveSite) -> None:
    run = site.deploy()
    assert run.code == 1
    assert "lmstudio_accept_license: LM Studio is not free software" in run.text
    assert run.outcomes == {}
    assert site.on("ls -d /opt/rackserve/releases 2>/dev/null; true") == ""


def test_a_host_with_its_driver_serves_and_a_second_run_changes_nothing(site: ArchiveSite) -> None:
    site.data["lmstudio_accept_license"] = True
    site.comes_up(CHANGES)


def test_the_model_is_loaded_with_the_engine_and_sizes_that_are_planned(site: ArchiveSite) -> None:
    (model,) = site.told("/api/v1/models")["models"]
    (instance,) = model["loaded_instances"]
    assert instance["id"] == "chat"
    # Requests share one context.
    assert (instance["config"]["context_length"], instance["config"]["parallel"]) == (4096, 2)
    assert site.on("/usr/libexec/rackserve/gpu-in-use chat && echo held") == "held\n"
    program = f"{HOME}/.lmstudio/llmster/{OLDER}/llmster"
    assert site.on(f"readlink /proc/{main_pid(site.lab, HOST)[0]}/exe").strip() == program


def test_it_listens_on_loopback_alone_and_loads_nothing_because_somebody_asks(site: ArchiveSite) -> None:
    assert site.listening() == [LOOPBACK]
    assert site.ask("/v1/chat/completions", {"model": "rackserve/chat", "messages": []})[0] == 404


def test_a_stream_in_flight_ends_before_the_server_does(site: ArchiveSite) -> None:
    assert stopped_under_a_stream(site, tokens=160).endswith("data: [DONE]\n\n")
    assert serves(site.lab, HOST)


def test_a_server_that_dies_comes_back_with_its_model(site: ArchiveSite) -> None:
    before = main_pid(site.lab, HOST)[0]
    with shortened.restarts(site.lab, HOST):
        site.on("systemctl kill -s KILL rackserve@chat")
        wait_for(site.lab, HOST, 90, ActiveState="active", SubState="running", NRestarts="1")
    assert main_pid(site.lab, HOST)[0] != before
    assert serves(site.lab, HOST)


def test_another_version_and_back_again(site: ArchiveSite) -> None:
    old = site.on("readlink /opt/rackserve/current/lmstudio").strip().rpartition("/")[2]
    for version, name in ((VERSION, offer(site, VERSION)), (OLDER, old)):
        assert offer(site, version) == name
        assert site.served().changed(HOST) == [CHANGES[1], *CHANGES[-2:]]
        assert site.on(f"ls {HOME}/.lmstudio/llmster") == f"{version}\n"
        assert serves(site.lab, HOST)
    assert len(site.releases()) == 2


def test_a_service_that_is_gone_leaves_nothing(site: ArchiveSite) -> None:
    site.leaves_nothing()
