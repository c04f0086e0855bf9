"""A service counts as started when it has answered a real completion and its GPUs are really in use.

And systemd rates its unit at most 2.0 on the host; 4.0 where podman runs a container: test_quadlet.py, which has it.
The server is a stand-in for Ollama on two simulated cards: faults are put into it that real servers have.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rackserve.lab.runtime_archives import ollama_archive
from tests.lab.archive_sites import HOST, WAY, ArchiveSite, driven
from tests.lab.conftest import LabFactory
from tests.lab.deploying import serves
from tests.lab.talking import unit_state

pytestmark = pytest.mark.lab

VERSION = "0.32.15"
SERVING = "Services | Service serving its plan"
SERVER = "/opt/rackserve/current/ollama/lib/standin/chat_server.py"
FACTS = "/etc/rackserve/services/chat.json"
full = functools.partial(pytest.param, marks=pytest.mark.full)
# Faults of a server that is up and green: what is made of its code, and what the journal then says. The helpers' own
# tests ask for each of them too.
FAULTS = [
    pytest.param("s/^TOKENS_PER_S = .*/TOKENS_PER_S = 0.001/", "completion: no answer", id="never-answers"),
    pytest.param("s/cards, mib = visible_cards../cards, mib = []/", "0 MiB on GPU 0", id="computes-on-the-cpu"),
    pytest.param(
        "s/cards, mib = visible_cards../cards, mib = visible_cards()[:1]/", "0 MiB on GPU 1", id="leaves-a-card-idle"
    ),
    full('s/"completion_tokens": count/"completion_tokens": 0/', "completion: no token", id="answers-without-a-token"),
    full('s/"model": body."model".,/"model": "other",/', "answered by 'other'", id="answers-with-another-model"),
    full(
        "s/^    if body.get(.stream.).*/    os._exit(0)/; /return _events/d", "completion: no answer", id="dies-of-it"
    ),
    full("s/{os.getpid()}/1/", "0 MiB on GPU 0", id="is-not-who-holds-them"),
]


@pytest.fixture(scope="module")
def site(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> ArchiveSite:
    """A host that serves on both of its cards."""
    made = driven(lab_factory("promise9"), tmp_path_factory.mktemp("promise9"), "ollama", cards=2)
    made.service["gpus"] = [0, 1]
    offer(made, "whole")
    made.served()
    return made


def offer(site: ArchiveSite, name: str, **contents: tuple[str, ...]) -> None:
    archive = site.lab.depot_dir / WAY / f"ollama-{name}.tar.zst"
    if not archive.exists():
        ollama_archive(archive, VERSION, **contents)
    site.offer(VERSION, archive, "sha256")


@contextmanager
def made_faulty(site: ArchiveSite, change: str) -> Iterator[None]:
    """Have another server code and less patience, for one start; then all as it was, and serving."""
    site.on(f"systemctl stop rackserve@chat; cp -a {SERVER} {FACTS} /root")
    site.on(f"sed -i {shlex.quote(change)} {SERVER} && ! cmp -s {SERVER} /root/chat_server.py")
    site.on(f"""sed -i 's/"start_s": [0-9]*/"start_s": 10/' {FACTS}""")
    try:
        yield
    finally:
        site.on(f"systemctl stop rackserve@chat; mv /root/chat_server.py {SERVER}; mv /root/chat.json {FACTS}")
        site.on("systemctl reset-failed rackserve@chat; systemctl start rackserve@chat")


def test_it_has_answered_and_holds_its_cards_before_systemd_calls_it_started(site: ArchiveSite) -> None:
    told = site.on("journalctl --output cat --no-pager -u rackserve@chat").splitlines()
    (answered,) = (number for number, line in enumerate(told) if line.startswith("wait-ready: first token after"))
    (started,) = (number for number, line in enumerate(told) if line.startswith("Started "))
    assert answered < started
    held = site.on("nvidia-smi --query-compute-apps=gpu_uuid --format=csv,noheader,nounits").split()
    assert sorted(held) == sorted(card["uuid"] for card in json.loads(site.on("cat /run/rackserve/gpus.json")))
    assert site.on("/usr/libexec/rackserve/gpu-in-use chat && echo held") == "held\n"


def test_systemd_rates_the_exposure_of_its_unit_at_most_2(site: ArchiveSite) -> None:
    rated = site.on("systemd-analyze security --no-pager rackserve@chat.service")
    (score,) = re.findall(r"Overall exposure level for rackserve@chat\.service: ([0-9.]+)", rated)
    assert float(score) <= 2.0


@pytest.mark.parametrize(("change", "said"), FAULTS)
def test_a_server_that_is_up_and_does_not_serve_is_not_started(site: ArchiveSite, change: str, said: str) -> None:
    with made_faulty(site, change):
        began = site.on("date +%s").strip()
        started = site.lab.ssh(HOST, "timeout 60 systemctl start rackserve@chat", check=False)
        assert (started.returncode, unit_state(site.lab, HOST)["ActiveState"]) == (1, "activating")
        told = site.on(f"journalctl --output cat --no-pager -u rackserve@chat --since @{began}")
        assert said in told
        assert "Started rackserve" not in told
    assert serves(site.lab, HOST)


def test_a_run_says_that_a_runtime_computes_on_the_cpu_and_the_way_back_serves_again(site: ArchiveSite) -> None:
    offer(site, "cpu-only", libraries=("vulkan",))
    run = site.deploy()
    assert run.code == 1
    assert run.failed(HOST) == [SERVING]
    assert "the runtime computes on the CPU" in run.said_of(HOST)
    assert unit_state(site.lab, HOST)["ActiveState"] == "inactive"
    offer(site, "whole")
    site.served()
    assert serves(site.lab, HOST)
