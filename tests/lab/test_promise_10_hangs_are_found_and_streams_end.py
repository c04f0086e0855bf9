"""A server that hangs is found out and started anew, one that is busy is left alone, a stream ends before its server.

Asked of llama-server, which hangs whole, and of vLLM, whose engine hangs behind a server that stays green. The modules
of the other runtimes ask their stand-ins for the end of a stream.
"""

from __future__ import annotations

import shlex
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.contract.harness import ROOT
from tests.lab.conftest import LabFactory
from tests.lab.deploying import Run, Site, main_pid, serves
from tests.lab.hanging import LENGTHS, Lengths, is_ended_and_comes_back, is_left_alone
from tests.lab.talking import Client, client_of, outlives, process_of, told_to_stop, wait_for
from tests.lab.vllm_site import MOST_OF_LONGEST, linked

pytestmark = pytest.mark.lab

LLAMA, ENGINE = "llama-server", "VLLM::EngineCore"
LENGTH = 2048
# What fits into a slot of llama-server beside a short prompt.
LONGEST = 1900
# Of a stream that a stop falls into: too many to be done with before it begins, however briefly a busy machine brakes.
STREAM = 900
REMOVED = "Services | Services that are not planned gone"
SERVING = "Services | Service serving its plan"


@pytest.fixture(scope="module")
def llama(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Site:
    lab = lab_factory("promise10")
    lab.up(1, "forky")
    site = Site(lab, tmp_path_factory.mktemp("promise10"))
    # One thread: several wait for each other in turns, which takes them minutes on a machine that has more to do.
    site.hosts["h1"]["services"][0] |= {"max_model_len": LENGTH, "threads": 1}
    return deployed(site)


@pytest.fixture(scope="module")
def vllm(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Site:
    if not ROOT.exists():
        pytest.skip("no real vLLM here: `make build/contract`")
    return deployed(linked(lab_factory("promise10-vllm"), tmp_path_factory.mktemp("promise10-vllm")))


def deployed(site: Site) -> Site:
    run = site.deploy()
    assert run.code == 0, run.text
    return site


def running(site: Site) -> Client:
    """A client of the service, which is started where a test has stopped it."""
    site.lab.ssh("h1", "systemctl start rackserve@chat")
    wait_for(site.lab, "h1", 240, ActiveState="active", SubState="running")
    return client_of(site.lab, "h1")


def outlives_a_run(site: Site, client: Client) -> Run:
    """Have a run take the server away under a stream, which ends first; the run."""
    with ThreadPoolExecutor(1) as pool:
        runs: list[Future[Run]] = []
        outlives(site.lab, "h1", client, LLAMA, lambda: runs.append(pool.submit(site.deploy)), tokens=STREAM)
        run = runs[0].result()
    assert run.code == 0, run.text
    return run


@LENGTHS
def test_llama_server_that_hangs_is_ended_and_comes_back(llama: Site, lengths: Lengths) -> None:
    assert running(llama).ask(max_tokens=1)[0] == 200
    is_ended_and_comes_back(llama.lab, "h1", LLAMA, lengths)


def test_a_busy_llama_server_is_left_alone(llama: Site) -> None:
    # Its own request waits behind those.
    slots = llama.hosts["h1"]["services"][0]["concurrency"]
    is_left_alone(llama.lab, "h1", running(llama), LLAMA, streams=slots, tokens=LONGEST)


def test_a_watch_that_was_switched_off_is_told_of_and_on_again_without_a_restart(llama: Site) -> None:
    running(llama)
    before = main_pid(llama.lab, "h1")
    llama.lab.ssh("h1", "systemctl stop rackserve-health@chat.timer")
    verified = llama.rackserve("verify", str(llama.write()))
    assert verified.returncode == 1
    assert "health timer" in verified.stdout + verified.stderr
    assert llama.deploy().changed("h1") == [SERVING]
    assert llama.lab.ssh("h1", "systemctl is-active rackserve-health@chat.timer").stdout == "active\n"
    assert main_pid(llama.lab, "h1") == before


def test_a_watch_comes_back_with_its_service(llama: Site) -> None:
    running(llama)
    llama.lab.ssh("h1", "systemctl stop rackserve-health@chat.timer; systemctl restart rackserve@chat")
    assert llama.lab.ssh("h1", "systemctl is-active rackserve-health@chat.timer").stdout == "active\n"


def test_a_stream_ends_before_a_stopped_server_does(llama: Site) -> None:
    outlives(llama.lab, "h1", running(llama), LLAMA, lambda: told_to_stop(llama.lab, "h1"), tokens=STREAM)
    assert wait_for(llama.lab, "h1", 60, ActiveState="inactive")["Result"] == "success"
    assert "in flight after" not in llama.lab.ssh("h1", "journalctl -u rackserve@chat --output cat").stdout


def test_a_stream_ends_before_a_run_starts_its_server_anew(llama: Site) -> None:
    client = running(llama)
    llama.hosts["h1"]["services"][0]["max_model_len"] = LENGTH // 2
    run = outlives_a_run(llama, client)
    assert run.changed("h1")[-1] == SERVING
    assert serves(llama.lab, "h1")


def test_a_stream_ends_before_its_host_reboots(llama: Site) -> None:
    client = running(llama)
    pid = process_of(llama.lab, "h1", LLAMA)
    # Nobody gets in any more to let it go on, so what brakes it does that once the stop is under way.
    stopping = '[ "$(systemctl show -p ActiveState --value rackserve@chat)" = deactivating ]'
    brake = f"until {stopping}; do kill -STOP {pid}; sleep 1; kill -CONT {pid}; sleep 0.005; done"
    unit = "systemd-run --quiet --unit=brake --collect --property=DefaultDependencies=no"
    llama.lab.ssh("h1", f"{unit} sh -c {shlex.quote(brake)}")
    stream = client.stream(max_tokens=STREAM, ignore_eos=True)
    stream.started()
    before = stream.chunks
    llama.lab.reboot("h1")
    stream.finish()
    assert (before < STREAM // 2, stream.done) == (True, True), (before, stream.chunks, stream.error)
    running(llama)
    assert serves(llama.lab, "h1")


def test_a_stream_ends_before_its_service_is_removed(llama: Site) -> None:
    client = running(llama)
    services, llama.hosts["h1"]["services"] = llama.hosts["h1"]["services"], []
    assert outlives_a_run(llama, client).changed("h1") == [REMOVED]
    llama.hosts["h1"]["services"] = services


@LENGTHS
def test_vllm_whose_engine_hangs_is_ended_and_comes_back(vllm: Site, lengths: Lengths) -> None:
    client = running(vllm)
    assert client.ask(max_tokens=1)[0] == 200
    vllm.lab.ssh("h1", f"test $(curl -s -o /dev/null -w '%{{http_code}}' {client.url}/health) = 200")
    is_ended_and_comes_back(vllm.lab, "h1", ENGINE, lengths)


@pytest.mark.full
def test_a_busy_vllm_is_left_alone(vllm: Site) -> None:
    slots = vllm.hosts["h1"]["services"][0]["concurrency"]
    is_left_alone(vllm.lab, "h1", running(vllm), ENGINE, streams=slots, tokens=MOST_OF_LONGEST)


def test_a_stream_ends_before_a_stopped_vllm_does(vllm: Site) -> None:
    outlives(vllm.lab, "h1", running(vllm), ENGINE, lambda: told_to_stop(vllm.lab, "h1"), tokens=MOST_OF_LONGEST)
    assert wait_for(vllm.lab, "h1", 60, ActiveState="inactive")["Result"] == "success"
