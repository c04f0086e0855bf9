"""Ollama on a host with a card: installed from its archive, run by a unit of ours on a store that it cannot change.

What is installed is a stand-in that reads its environment and store as Ollama 0.32 does; see rackserve/lab/standins.
"""

from __future__ import annotations

import pytest

from rackserve.lab.runtime_archives import ollama_archive
from tests.lab.archive_sites import HOST, WAY, ArchiveSite, driven, stopped_under_a_stream
from tests.lab.conftest import LabFactory
from tests.lab.deploying import main_pid, serves
from tests.lab.hanging import LENGTHS, Lengths, is_ended_and_comes_back

pytestmark = pytest.mark.lab

VERSION, NEWER = "0.32.15", "0.32.16"
CHANGES = [
    "Ollama | Packages for Ollama installed",
    "Ollama | Release of Ollama current",
    "Models | Model in place",
    "Services | Service user present",
    "Services | Units and helpers as planned",
    "Services | Links to the model as planned",
    "Services | Service serving its plan",
]
# Of the vendor's installer, which enables it.
VENDOR_UNIT = "printf '[Service]\\nEnvironment=OLLAMA_HOST=127.0.0.1:{port}\\nExecStart=/bin/sleep infinity\\n' \
>/etc/systemd/system/ollama.service && systemctl daemon-reload && systemctl restart ollama"


@pytest.fixture(scope="module")
def site(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> ArchiveSite:
    made = driven(lab_factory("ollama"), tmp_path_factory.mktemp("ollama"), "ollama")
    offer(made, VERSION)
    return made


def offer(site: ArchiveSite, version: str) -> str:
    archive = site.lab.depot_dir / WAY / f"ollama-{version}.tar.zst"
    if not archive.exists():
        ollama_archive(archive, version)
    return site.offer(version, archive, "sha256")


def test_a_host_with_its_driver_serves_and_a_second_run_changes_nothing(site: ArchiveSite) -> None:
    site.comes_up(CHANGES)


def test_the_model_is_loaded_on_the_card_as_planned_and_stays(site: ArchiveSite) -> None:
    (model,) = site.told("/api/ps")["models"]
    assert (model["name"], model["context_length"]) == ("chat:latest", 2048)
    assert model["size_vram"] == model["size"]
    assert site.on("/usr/libexec/rackserve/gpu-in-use chat && echo held") == "held\n"


def test_whoever_reaches_the_server_cannot_delete_the_model(site: ArchiveSite) -> None:
    status, text = site.ask("/api/delete", {"model": "chat"}, "DELETE")
    assert (status, "Read-only" in text or "Permission" in text) == (500, True)
    assert serves(site.lab, HOST)


def test_a_stream_in_flight_ends_before_the_server_does(site: ArchiveSite) -> None:
    assert stopped_under_a_stream(site, tokens=160).endswith("data: [DONE]\n\n")
    assert serves(site.lab, HOST)


@LENGTHS
def test_a_server_without_metrics_that_hangs_is_ended_and_comes_back(site: ArchiveSite, lengths: Lengths) -> None:
    """Only the time that it computes tells whether it is busy."""
    is_ended_and_comes_back(site.lab, HOST, "standin/ollama serve", lengths)


def test_ollamas_own_unit_is_refused_on_a_planned_port_and_else_told_of(site: ArchiveSite) -> None:
    site.on(VENDOR_UNIT.format(port=8001))
    run = site.deploy()
    assert run.code == 1
    assert run.failed(HOST) == ["Preflight | Ports and GPUs not held by Ollama's own unit"]
    assert "chat is planned for port 8001, where ollama.service listens" in run.said_of(HOST)
    site.on(VENDOR_UNIT.format(port=11434))
    run = site.served()
    assert run.changed(HOST) == []
    assert "ollama.service is active" in run.said_of(HOST)
    site.on("systemctl stop ollama && rm /etc/systemd/system/ollama.service && systemctl daemon-reload")


def test_another_version_and_back_again(site: ArchiveSite) -> None:
    old = site.on("readlink /opt/rackserve/current/ollama").strip().rpartition("/")[2]
    new = offer(site, NEWER)
    changes = ["Ollama | Release of Ollama current", "Services | Units and helpers as planned", CHANGES[-1]]
    assert site.served().changed(HOST) == changes
    assert site.told("/api/version") == {"version": NEWER}
    assert site.releases() == {old, new}
    assert offer(site, VERSION) == old
    assert site.served().changed(HOST) == changes
    assert site.told("/api/version") == {"version": VERSION}


def test_an_archive_of_another_version_than_planned_changes_nothing(site: ArchiveSite) -> None:
    before = main_pid(site.lab, HOST)
    offer(site, NEWER)
    site.service["runtime_version"] = VERSION
    run = site.deploy()
    assert run.code == 1
    assert f"client version is {NEWER}" in run.said_of(HOST)
    assert main_pid(site.lab, HOST) == before
    offer(site, VERSION)


def test_a_service_that_is_gone_leaves_nothing(site: ArchiveSite) -> None:
    site.leaves_nothing()
