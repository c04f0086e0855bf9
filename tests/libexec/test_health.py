"""health, run as a program against a server that hangs, is busy or is gone, with a stand-in for systemctl."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.libexec.helper_host import HELPERS, UNIT, HelperHost, assert_refused

KILL = [f"kill --signal=SIGKILL -- {UNIT}"]
STATE = "run/rackserve-health/chat.json"


@pytest.fixture
def quick(host: HelperHost) -> HelperHost:
    host.quick("health", PROBE_S=0.5, RETRY_S=0.05, METRICS_S=0.5)
    return host


def state(host: HelperHost) -> Any:
    return json.loads((host.root / STATE).read_text())


def shipped(name: str, program: str = "health") -> int:
    """A length that the program has as a constant."""
    found = re.search(rf"^{name} = (\d+)$", (HELPERS / program).read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_as_many_looks_as_long_as_operators_are_told_of():
    """docs/runtimes.md: every half minute, three looks. Tests on lab hosts set shorter ones."""
    assert (shipped("LOOKS"), shipped("PROBE_S"), shipped("METRICS_S")) == (3, 60, 60)


def test_the_longest_look_is_over_before_its_unit_is_ended():
    unit = (HELPERS.parent / "systemd" / "rackserve-health@.service.j2").read_text()
    assert "TimeoutStartSec=5min\n" in unit
    # The unit's state, two questions, the metrics, the state again and the end.
    asked = 3 * shipped("SYSTEMCTL_S", "rackserve_helpers.py")
    assert asked + 2 * shipped("PROBE_S") + shipped("RETRY_S") + shipped("METRICS_S") < 5 * 60


def test_a_server_that_answers_is_well(server, quick):
    server.tokens = 7
    done = quick.run("health")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert state(quick) == {"pid": "100", "failures": 0, "work": {"vllm:generation_tokens_total": 7}}


def test_an_engine_that_hangs_behind_a_green_server_is_killed_at_the_third_look(server, quick):
    server.delay_s, server.tokens = 3, 7
    assert_refused(quick.run("health"), "look 1 of 3 without an answer, nothing computed since the last: completion")
    assert_refused(quick.run("health"), "look 2 of 3")
    assert quick.kills == []
    done = quick.run("health")
    assert_refused(done, "timed out")
    assert f"{UNIT} hangs: killing all its processes" in done.stderr
    assert quick.kills == KILL


def test_a_busy_server_is_not_hung_as_long_as_it_computes(server, quick):
    server.delay_s = 3
    quick.run("health")
    for tokens in range(1, 5):
        server.tokens = tokens
        done = quick.run("health")
        assert done.returncode == 0
        assert "busy, not hung: vllm:generation_tokens_total went from" in done.stderr
        assert state(quick)["failures"] == 0
    assert quick.kills == []


def test_growth_since_the_last_answer_counts_too(server, quick):
    quick.run("health")
    server.delay_s, server.tokens = 3, 1
    assert quick.run("health").returncode == 0


def test_an_answer_in_between_begins_the_count_anew(server, quick):
    for delay in (3.0, 3.0, 0.0, 3.0, 3.0):
        server.delay_s = delay
        quick.run("health")
    assert quick.kills == []
    assert state(quick)["failures"] == 2


def test_another_process_begins_the_count_anew(server, quick):
    server.delay_s = 3
    quick.run("health")
    quick.run("health")
    quick.state(pid=200)
    assert_refused(quick.run("health"), "look 1 of 3")
    assert quick.kills == []


def test_a_unit_that_was_restarted_during_the_look_is_left_alone(server, quick):
    server.delay_s = 3
    quick.run("health")
    quick.run("health")
    server.on_completion = lambda: quick.state(pid=200)
    done = quick.run("health")
    assert "restarted meanwhile" in done.stdout
    assert quick.kills == []


@pytest.mark.parametrize(
    ("active", "sub"),
    [
        ("activating", "start-post"),
        ("activating", "auto-restart"),
        ("deactivating", "stop-sigterm"),
        ("failed", "failed"),
        ("inactive", "dead"),
        ("active", "exited"),
    ],
)
def test_a_unit_that_does_not_run_is_none_of_its_business(server, quick, active, sub):
    quick.state(active, sub)
    assert quick.run("health").returncode == 0
    assert server.asked == []


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_server_that_refuses_is_told_and_never_killed(server, quick, status):
    server.statuses = [status]
    for _ in range(4):
        assert_refused(quick.run("health"), f"HTTP {status}")
    assert quick.kills == []


def test_one_error_of_the_server_is_asked_for_twice(server, quick):
    server.statuses = [500, 200]
    assert quick.run("health").returncode == 0
    assert server.paths.count("/v1/chat/completions") == 2


def test_errors_of_the_server_are_failures_in_the_end(server, quick):
    server.statuses = [500]
    for look in (1, 2, 3):
        assert_refused(quick.run("health"), f"look {look} of 3")
    assert quick.kills == KILL


@pytest.mark.parametrize("status", [429, 503])
def test_a_full_server_is_hung_only_if_nothing_grows(server, quick, status):
    server.statuses = [status]
    quick.run("health")
    for tokens in (1, 2, 3):
        server.tokens = tokens
        assert quick.run("health").returncode == 0
    assert quick.kills == []
    for _ in range(3):
        quick.run("health")
    assert quick.kills == KILL


def test_a_port_that_nobody_listens_at_is_a_failure(quick):
    quick.service(url="http://127.0.0.1:9")
    for _ in range(3):
        assert_refused(quick.run("health"), "refused")
    assert quick.kills == KILL


def cpu(host: HelperHost, seconds: float) -> None:
    path = f"sys/fs/cgroup/system.slice/system-rackserve.slice/{UNIT}/cpu.stat"
    host.write(path, f"usage_usec {round(seconds * 1e6)}\nuser_usec 1\n")


def test_without_counters_a_server_that_uses_cpu_time_is_busy(server, quick):
    quick.service(metrics=None, progress=[])
    server.delay_s = 3
    for seconds in (100, 130, 160, 190):
        cpu(quick, seconds)
        done = quick.run("health")
    assert "busy, not hung: seconds of CPU time went from 160 to 190" in done.stderr
    assert quick.kills == []
    assert "/metrics" not in server.paths


def test_without_counters_a_server_that_only_waits_is_hung(server, quick):
    quick.service(metrics=None, progress=[])
    server.delay_s = 3
    for seconds in (100, 100.4, 100.9):
        cpu(quick, seconds)
        quick.run("health")
    assert quick.kills == KILL


def test_metrics_that_hang_with_the_engine_are_no_growth(server, quick):
    server.tokens = 1
    quick.run("health")
    server.delay_s = server.metrics_delay_s = 3
    server.tokens = 9
    for _ in range(3):
        quick.run("health")
    assert quick.kills == KILL
    assert state(quick)["work"] == {"vllm:generation_tokens_total": 1}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "100", "failures": 2, "work": []}', '{"pid": "100"}'])
def test_a_broken_note_of_the_last_look_is_none(server, quick, text):
    quick.write(STATE, text)
    server.delay_s = 3
    assert_refused(quick.run("health"), "look 1 of 3")


def test_a_unit_that_cannot_be_killed_is_told(server, quick):
    server.delay_s = 3
    quick.bin.with_name("kill-fails").touch()
    for _ in range(3):
        done = quick.run("health")
    assert_refused(done, f"{UNIT} could not be killed: Access denied")


def test_without_systemd_it_says_so(quick):
    quick.standin("systemctl", "#!/bin/sh\nexit 1\n")
    assert_refused(quick.run("health"), f"systemd does not say how {UNIT} is")


def test_a_missing_key_is_told(quick):
    quick.service(key_file=str(quick.root / "missing"))
    assert_refused(quick.run("health"), "the key cannot be read")
    assert quick.kills == []
