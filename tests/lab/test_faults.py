"""What stops a run before any host is touched, and a server that cannot start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.conftest import LabFactory
from tests.lab.deploying import Site, main_pid, serves

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def deployed(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Two hosts that serve: h1 is the one that gets into trouble, h2 the one that must not notice."""
    lab = lab_factory("faults")
    lab.up(2, "forky")
    site = Site(lab, tmp_path_factory.mktemp("faults"))
    run = site.deploy()
    assert run.code == 0, run.text
    return site


@pytest.fixture
def site(deployed: Site) -> Iterator[Site]:
    yield deployed
    deployed.reset()


def test_stated_memory_that_is_not_there(site: Site) -> None:
    before = main_pid(site.lab, "h1")
    site.hosts["h1"]["memory_mib"] *= 4
    run = site.deploy()
    assert [name.partition(" | ")[2] for name in run.failed("h1")] == ["Host is what its tag says"], run.text
    assert "memory_mib says" in run.said_of("h1")
    assert "the host has" in run.said_of("h1")
    assert run.failed("h2") == []
    assert main_pid(site.lab, "h1") == before


def test_invalid_inventory_stops_before_any_host_is_touched_and_tells_all(site: Site) -> None:
    site.hosts["h1"]["services"][0] |= {"model": "no-such-model", "api_key_file": None}
    site.hosts["h2"]["services"][0]["api_key_file"] = "/no/such/file"
    run = site.deploy()
    assert run.code == 1
    assert run.outcomes == {}
    assert "host h1: service chat: model: no-such-model is not in the catalogue" in run.text
    assert "host h2: service chat: api_key_file: /no/such/file: No such file or directory" in run.text
    assert "Traceback" not in run.text
    assert serves(site.lab, "h1")


def test_model_that_does_not_fit_stops_before_any_host_is_touched(site: Site) -> None:
    site.hosts["h1"]["memory_mib"] = 64
    run = site.deploy()
    assert run.code == 1
    assert run.outcomes == {}
    assert "host h1: service chat: tiny-random Q8_0 does not fit" in run.text
    assert serves(site.lab, "h1")


def test_server_that_cannot_start_shows_its_last_words_and_is_mended_by_a_run(site: Site) -> None:
    path = site.lab.ssh("h1", "ls /srv/models/*/*.gguf").stdout.split()[0]
    site.lab.ssh("h1", f"cp {path} /root/kept && printf broken | dd of={path} conv=notrunc 2>/dev/null")
    site.hosts["h1"]["services"][0]["concurrency"] = 3
    run = site.deploy()
    assert [name.partition(" | ")[2] for name in run.failed("h1")] == ["Service serving its plan"]
    assert "does not serve; its last words" in run.said_of("h1")
    assert "invalid magic" in run.said_of("h1") or "failed to load model" in run.said_of("h1")
    assert run.failed("h2") == []
    site.lab.ssh("h1", f"mv /root/kept {path} && chmod 644 {path}")
    mended = site.deploy()
    assert mended.code == 0, mended.text
    assert serves(site.lab, "h1")
