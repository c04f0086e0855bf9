"""A server that hangs is found out and started anew, one that is busy is left alone, a stream ends before its server.

Asked of llama-server, which hangs whole, and of vLLM, whose engine hangs behind a server that stays green. The modules
of the other runtimes ask their stand-ins for the end of a stream.
"""

from __future__ import annotations

import shlex
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.contract.harness import ROOT
from tests.lab import shortened
from tests.lab.conftest import LabFactory
from tests.lab.deploying import Run, Site, main_pid, serves
from tests.lab.talking import (
    STREAM_TOKENS,
    Client,
    braked,
    client_of,
    outlives,
    process_of,
    told_to_stop,
    unit_state,
    wait_for,
)
from tests.lab.vllm_site import MOST, linked

pytestmark = pytest.mark.lab

LLAMA, ENGINE = "llama-server", "VLLM::EngineCore"
LENGTH = 2048
# What fits into a slot of llama-server beside a short prompt.
LONGEST = 1900
LOOKS = 3
# Seconds between looks, and that a look waits for an answer and for metrics.
SHIPPED, SOON = (30, 60, 60), (3, 4, 4)
LENGTHS = pytest.mark.parametrize(
    "lengths", [pytest.param(SOON, id="soon"), pytest.param(SHIPPED, id="shipped", marks=pytest.mark.full)]
)
REMOVED = "Services | Services that are not planned gone"
SERVING = "Services | Service serving its plan"


@pytest.fixture(scope="module")
def llama(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Site:
    lab = lab_factory("promise10")
    lab.up(1, "forky")
    site = Site(lab, tmp_path_factory.mktemp("promise10"))
    site.hosts["h1"]["services"][0]["max_model_len"] = LENGTH
    return deployed(site)


@pytest.fixture(scope="module")
def vllm(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Site:
    if not (ROOT / "ready").exists():
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


def looked(site: Site) -> str:
    """What the health check has said."""
    return site.lab.ssh("h1", "journalctl -u rackserve-health@chat --output cat --no-pager").stdout


def is_ended_and_comes_back(site: Site, process: str, lengths: tuple[int, int, int]) -> None:
    """Stop a process, as a hang does: the health check has the service start anew, and says why."""
    between, answer_s, metrics_s = lengths
    with ExitStack() as hurried:
        if lengths != SHIPPED:
            hurried.enter_context(shortened.restarts(site.lab, "h1"))
            hurried.enter_context(shortened.looks(site.lab, "h1", between, answer_s, metrics_s))
        before = main_pid(site.lab, "h1")[0]
        site.lab.ssh("h1", f"kill -STOP {process_of(site.lab, 'h1', process)}")
        deadline = time.monotonic() + LOOKS * sum(lengths) + 180
        while unit_state(site.lab, "h1")["MainPID"] in {before, "0"}:
            assert time.monotonic() < deadline, looked(site)
            time.sleep(0.5)
        wait_for(site.lab, "h1", 240, ActiveState="active", SubState="running")
        assert serves(site.lab, "h1")
        told = looked(site)
    assert f"look {LOOKS} of {LOOKS} without an answer" in told
    assert "rackserve@chat.service hangs" in told


def outlives_a_run(site: Site, client: Client) -> Run:
    """Have a run take the server away under a stream, which ends first; the run."""
    with ThreadPoolExecutor(1) as pool:
        runs: list[Future[Run]] = []
        outlives(site.lab, "h1", client, LLAMA, lambda: runs.append(pool.submit(site.deploy)))
        run = runs[0].result()
    assert run.code == 0, run.text
    return run


def is_left_alone(site: Site, process: str, streams: int, tokens: int) -> None:
    """Have more to do than gets done in as many looks as a hang is given: nothing is ended, all streams are."""
    client, before = running(site), main_pid(site.lab, "h1")
    # By hand, and not whenever the timer is.
    site.lab.ssh("h1", "systemctl stop rackserve-health@chat.timer; systemctl start rackserve-health@chat")
    # Metrics come between two batches, which are slow here.
    with shortened.looks(site.lab, "h1", 3, 2, 30), braked(site.lab, "h1", process_of(site.lab, "h1", process), 0.5):
        begun = [client.stream(max_tokens=tokens, ignore_eos=True) for _ in range(streams)]
        for stream in begun:
            stream.started()
        for _ in range(LOOKS + 1):
            site.lab.ssh("h1", "systemctl start rackserve-health@chat")
        assert not any(stream.done for stream in begun), [stream.error for stream in begun]
    for stream in begun:
        stream.finish()
        assert stream.done, stream.error
    assert looked(site).count("chat: busy, not hung: ") >= LOOKS + 1
    assert main_pid(site.lab, "h1") == before
    site.lab.ssh("h1", "systemctl start rackserve-health@chat.timer")


@LENGTHS
def test_llama_server_that_hangs_is_ended_and_comes_back(llama: Site, lengths: tuple[int, int, int]) -> None:
    assert running(llama).ask(max_tokens=1)[0] == 200
    is_ended_and_comes_back(llama, LLAMA, lengths)


def test_a_busy_llama_server_is_left_alone(llama: Site) -> None:
    # Its own request waits behind those.
    is_left_alone(llama, LLAMA, streams=llama.hosts["h1"]["services"][0]["concurrency"], tokens=LONGEST)


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
    outlives(llama.lab, "h1", running(llama), LLAMA, lambda: told_to_stop(llama.lab, "h1"))
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
    stream = client.stream(max_tokens=STREAM_TOKENS, ignore_eos=True)
    stream.started()
    before = stream.chunks
    llama.lab.reboot("h1")
    stream.finish()
    assert (before < STREAM_TOKENS // 2, stream.done) == (True, True), (before, stream.chunks, stream.error)
    running(llama)
    assert serves(llama.lab, "h1")


def test_a_stream_ends_before_its_service_is_removed(llama: Site) -> None:
    client = running(llama)
    services, llama.hosts["h1"]["services"] = llama.hosts["h1"]["services"], []
    assert outlives_a_run(llama, client).changed("h1") == [REMOVED]
    llama.hosts["h1"]["services"] = services


@LENGTHS
def test_vllm_whose_engine_hangs_is_ended_and_comes_back(vllm: Site, lengths: tuple[int, int, int]) -> None:
    client = running(vllm)
    assert client.ask(max_tokens=1)[0] == 200
    vllm.lab.ssh("h1", f"test $(curl -s -o /dev/null -w '%{{http_code}}' {client.url}/health) = 200")
    is_ended_and_comes_back(vllm, ENGINE, lengths)


@pytest.mark.full
def test_a_busy_vllm_is_left_alone(vllm: Site) -> None:
    is_left_alone(vllm, ENGINE, streams=vllm.hosts["h1"]["services"][0]["concurrency"], tokens=MOST)


def test_a_stream_ends_before_a_stopped_vllm_does(vllm: Site) -> None:
    outlives(vllm.lab, "h1", running(vllm), ENGINE, lambda: told_to_stop(vllm.lab, "h1"))
    assert wait_for(vllm.lab, "h1", 60, ActiveState="inactive")["Result"] == "success"
