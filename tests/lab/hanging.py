"""Hang a server, and have it do more than it gets done: what the health check on a lab host makes of either."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TypeAlias

import pytest

from rackserve.lab.lab import Lab
from tests.lab import shortened
from tests.lab.deploying import main_pid, serves
from tests.lab.talking import Client, braked, process_of, unit_state, wait_for

LOOKS = 3
Lengths: TypeAlias = tuple[int, int, int]
# Seconds between looks, and that a look waits for an answer and for metrics.
SHIPPED, SOON = (30, 60, 60), (2, 3, 3)
LENGTHS = pytest.mark.parametrize(
    "lengths", [pytest.param(SOON, id="soon"), pytest.param(SHIPPED, id="shipped", marks=pytest.mark.full)]
)


def looked(lab: Lab, host: str) -> str:
    """What the health check has said."""
    return lab.ssh(host, "journalctl -u rackserve-health@chat --output cat --no-pager").stdout


def is_ended_and_comes_back(lab: Lab, host: str, process: str, lengths: Lengths) -> None:
    """Stop a process, as a hang does: the health check has the service start anew, and says why."""
    between, answer_s, metrics_s = lengths
    with ExitStack() as hurried:
        if lengths != SHIPPED:
            hurried.enter_context(shortened.restarts(lab, host))
            hurried.enter_context(shortened.looks(lab, host, between, answer_s, metrics_s))
        before = main_pid(lab, host)[0]
        lab.ssh(host, f"kill -STOP {process_of(lab, host, process)}")
        deadline = time.monotonic() + LOOKS * sum(lengths) + 180
        while unit_state(lab, host)["MainPID"] in {before, "0"}:
            assert time.monotonic() < deadline, looked(lab, host)
            time.sleep(0.5)
        wait_for(lab, host, 240, ActiveState="active", SubState="running")
        assert serves(lab, host)
        told = looked(lab, host)
    assert f"look {LOOKS} of {LOOKS} without an answer" in told
    assert "rackserve@chat.service hangs" in told


def is_left_alone(lab: Lab, host: str, client: Client, process: str, *, streams: int, tokens: int) -> None:
    """Have more to do than gets done in as many looks as a hang is given: nothing is ended, all streams are."""
    before = main_pid(lab, host)
    # By hand, and not whenever the timer is.
    lab.ssh(host, "systemctl stop rackserve-health@chat.timer; systemctl start rackserve-health@chat")
    # Metrics come between two batches, which are slow here.
    with shortened.looks(lab, host, 3, 2, 30), braked(lab, host, process_of(lab, host, process), 0.5):
        begun = [client.stream(max_tokens=tokens, ignore_eos=True) for _ in range(streams)]
        for stream in begun:
            stream.started()
        for _ in range(LOOKS + 1):
            lab.ssh(host, "systemctl start rackserve-health@chat")
        assert not any(stream.done for stream in begun), [stream.error for stream in begun]
    for stream in begun:
        stream.finish()
        assert stream.done, stream.error
    assert looked(lab, host).count("chat: busy, not hung: ") >= LOOKS + 1
    assert main_pid(lab, host) == before
    lab.ssh(host, "systemctl start rackserve-health@chat.timer")
