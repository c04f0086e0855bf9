"""SGLang on a host with two cards: installed from pinned wheels, given one card, watched, drained, removed.

What is installed is a stand-in that computes nothing and takes everything as the real one does; see sglang_wheel.py.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from rackserve.lab.lab import Lab
from tests.lab import shortened
from tests.lab.archive_sites import HOST, LOOPBACK, WAY, ArchiveSite, driven, stopped_under_a_stream
from tests.lab.checkpoints import MODEL, offer_checkpoint, pinned_at, requirements_entry
from tests.lab.conftest import LabFactory
from tests.lab.deploying import main_pid, serves
from tests.lab.sglang_wheel import CUDA, TOOLS, VERSION, wheels
from tests.lab.talking import IN_SCHEMA, keeps_to_schema

pytestmark = pytest.mark.lab

CARD = 1
CURRENT = "readlink -f /opt/rackserve/current/sglang"
CHANGES = [
    "SGLang | Packages for SGLang installed",
    "SGLang | Release of SGLang in place",
    "Models | Model's files in place",
    "Services | Service user present",
    "Services | Compile checks as planned",
    "Services | Planned release compiles",
    "Services | Planned release current",
    "Services | Units and helpers as planned",
    "Services | Service serving its plan",
]
# Seconds that drain waits for requests, and tokens that take longer than it and than the server then takes to look at
# them (5 s), at 20 a second.
DRAINS = [pytest.param(4, 320, id="soon"), pytest.param(30, 840, id="shipped", marks=pytest.mark.full)]


@pytest.fixture(scope="module")
def site(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> ArchiveSite:
    """A host with its driver, and wheels for CUDA and for the CPU in the depot, each with its catalogue."""
    folder = tmp_path_factory.mktemp("sglang")
    made = driven(lab_factory("sglang"), folder, "sglang", cards=2)
    offer(made.lab, folder)
    made.service |= {
        "model": MODEL,
        "runtime_version": VERSION,
        "gpus": [CARD],
        "structured_output": "xgrammar",
        # Becomes JSON in a command line.
        "temperature": 0.7,
    }
    made.data["catalog"].append(str(folder / "cuda.toml"))
    return made


def offer(lab: Lab, folder: Path) -> None:
    model = offer_checkpoint(lab, folder)
    for name, cuda in (("cuda", CUDA), ("cpu", None)):
        files = wheels(lab.depot_dir / WAY / name, cuda)
        pins = pinned_at(f"{lab.depot_url}/{WAY}/{name}", *files)
        for suffix, text in (("", pins), ("-again", f"# The same packages, as another release.\n{pins}")):
            pinned = folder / f"{name}{suffix}.txt"
            pinned.write_text(text)
            entry = requirements_entry("sglang", VERSION, "cuda", pinned, gib=1, more=f'family = "{CUDA}"\n{TOOLS}')
            pinned.with_suffix(".toml").write_text(f"{model}\n{entry}")


def test_a_host_with_its_driver_serves_and_a_second_run_changes_nothing(site: ArchiveSite) -> None:
    site.comes_up(CHANGES)
    assert site.on(CURRENT).startswith(f"/opt/rackserve/releases/sglang-{VERSION}-cuda-")


def test_it_has_its_own_card_only_and_listens_on_the_loopback_address_only(site: ArchiveSite) -> None:
    cards = json.loads(site.on("cat /run/rackserve/gpus.json"))
    pid, _ = main_pid(site.lab, HOST)
    environment = site.on(f"tr '\\0' '\\n' </proc/{pid}/environ").splitlines()
    assert f"CUDA_VISIBLE_DEVICES={cards[CARD]['uuid']}" in environment
    used = site.on("nvidia-smi --query-compute-apps=gpu_uuid,pid --format=csv,noheader,nounits")
    assert used == f"{cards[CARD]['uuid']}, {pid}\n"
    allowed = site.on("systemctl show -p DeviceAllow --value rackserve@chat").split()
    assert [name for name in allowed if "/gpu" in name] == [f"/dev/rackserve/gpu{CARD}"]
    assert site.listening() == [LOOPBACK]


def test_output_keeps_to_a_json_schema(site: ArchiveSite) -> None:
    (choice,) = site.completion(response_format=IN_SCHEMA)["choices"]
    assert keeps_to_schema(choice["message"]["content"])


def test_its_work_is_seen_in_its_metrics(site: ArchiveSite) -> None:
    """Health reads these to tell a busy server from one that hangs."""

    def told() -> dict[str, float]:
        lines = (line for line in site.ask("/metrics")[1].splitlines() if line.startswith("sglang:"))
        return {line.partition("{")[0]: float(line.split()[-1]) for line in lines}

    facts = json.loads(site.on("cat /etc/rackserve/services/chat.json"))
    before = told()
    assert {*facts["in_flight"], *facts["progress"]} <= set(before)
    site.completion()
    after = told()
    assert all(after[name] > before[name] for name in facts["progress"])
    site.on("systemctl start rackserve-health@chat")


def test_a_wheel_for_another_backend_is_refused_and_the_old_release_serves(site: ArchiveSite) -> None:
    before = site.on(CURRENT), site.releases(), main_pid(site.lab, HOST)
    *others, own = site.data["catalog"]
    site.data["catalog"] = [*others, str(Path(own).with_name("cpu.toml"))]
    run = site.deploy()
    assert run.code == 1
    assert run.failed(HOST) == [CHANGES[1]]
    assert f"torch 9.9 computes with cpu, planned is cuda {CUDA}" in run.said_of(HOST)
    assert (site.on(CURRENT), site.releases(), main_pid(site.lab, HOST)) == before
    assert serves(site.lab, HOST)
    site.data["catalog"] = [*others, own]
    assert site.served().changed(HOST) == []


def test_another_release_and_the_way_back(site: ArchiveSite) -> None:
    old = site.on(CURRENT)
    # Either way the planned release is another, and is asked; the unit names none.
    switched = [CHANGES[1], *CHANGES[5:7], CHANGES[-1]]
    *others, own = site.data["catalog"]
    site.data["catalog"] = [*others, str(Path(own).with_name("cuda-again.toml"))]
    assert site.served().changed(HOST) == switched
    assert site.on(CURRENT) != old
    site.data["catalog"] = [*others, own]
    assert site.served().changed(HOST) == switched
    assert site.on(CURRENT) == old
    assert len([name for name in site.releases() if name.startswith("sglang-")]) == 2


@pytest.mark.parametrize(("drain_s", "tokens"), DRAINS)
def test_a_stream_in_flight_ends_before_the_server_does(site: ArchiveSite, drain_s: int, tokens: int) -> None:
    with shortened.drain(site.lab, HOST, drain_s):
        began = time.time()
        assert stopped_under_a_stream(site, tokens).endswith("data: [DONE]\n\n")
    said = site.on(f"journalctl -u rackserve@chat --output cat --no-pager --since @{int(began)}")
    assert f"requests in flight after {drain_s} s, stopping anyway" in said
    assert "Remaining number of requests 1" in said
    assert serves(site.lab, HOST)


def test_a_service_that_is_gone_leaves_nothing(site: ArchiveSite) -> None:
    site.leaves_nothing()
