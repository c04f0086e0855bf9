"""wait-ready, run as a program against a small server."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from tests.libexec.helper_host import KEY, assert_refused
from tests.libexec.model_server import GOOD


def test_a_server_that_answers_is_ready(server, host):
    done = host.run("wait-ready")
    assert (done.returncode, done.stderr) == (0, "")
    (path, authorization, asked) = server.asked[-1]
    assert (path, authorization) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert (asked["model"], asked["max_tokens"]) == ("chat", 1)
    assert KEY not in done.stdout


def test_a_server_that_knows_no_keys_is_sent_none(server, host):
    host.service(key_file=None)
    assert host.run("wait-ready").returncode == 0
    assert {authorization for _, authorization, _ in server.asked} == {None}


def test_the_health_path_is_the_services(server, host):
    host.service(health="/")
    assert host.run("wait-ready").returncode == 0
    assert server.paths == ["/", "/v1/chat/completions"]


def test_a_server_that_becomes_healthy_late_is_waited_for_and_each_state_told_once(server, host):
    server.healthy_at = time.monotonic() + 1.5
    done = host.run("wait-ready")
    assert done.returncode == 0
    assert done.stdout.count("Loading model") == 1
    assert server.paths.count("/health") >= 2


def test_a_server_that_never_becomes_healthy_is_given_up_at_the_deadline(server, host):
    server.healthy_at = time.monotonic() + 1000
    host.service(start_s=1)
    started = time.monotonic()
    assert_refused(host.run("wait-ready"), "Loading model")
    assert time.monotonic() - started < 6


def test_a_port_that_is_not_open_is_told(host):
    host.service(url="http://127.0.0.1:9", start_s=1)
    assert_refused(host.run("wait-ready"), "port not open")


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, "engine broke", "HTTP 500 engine broke"),
        (401, "no such key", "HTTP 401"),
        (200, GOOD | {"model": "other"}, "'other'"),
        (200, GOOD | {"choices": []}, "no token"),
        (200, GOOD | {"usage": {"completion_tokens": 0}}, "no token"),
        (200, {"model": "chat", "choices": [{}]}, "not understood"),
        (200, "<html>a proxy's page</html>", "completion"),
        (200, ["chat"], "completion"),
        (200, GOOD | {"usage": None}, "completion"),
    ],
)
def test_a_healthy_server_that_gives_no_token_is_not_ready(server, host, status, body, reason):
    server.statuses, server.body = [status], body
    assert_refused(host.run("wait-ready"), reason)


def test_a_completion_that_hangs_is_given_up_at_the_deadline(server, host):
    server.delay_s = 20
    host.service(start_s=2)
    started = time.monotonic()
    assert_refused(host.run("wait-ready"), "timed out")
    assert time.monotonic() - started < 8


def test_a_server_process_that_has_exited_is_not_waited_for(server, host):
    server.healthy_at = time.monotonic() + 1000
    host.service(start_s=50)
    gone = subprocess.Popen(["true"])
    gone.wait()
    started = time.monotonic()
    assert_refused(host.run("wait-ready", MAINPID=str(gone.pid)), "exited")
    assert time.monotonic() - started < 10


def test_a_server_process_that_is_there_is_waited_for(host):
    assert host.run("wait-ready", MAINPID=str(os.getpid())).returncode == 0


def test_a_missing_key_is_told(server, host):
    host.service(key_file=str(host.root / "missing"))
    assert_refused(host.run("wait-ready"), "missing")
    assert server.asked == []


def test_a_server_that_answers_from_the_cpu_is_not_ready(host):
    host.service(vendor="nvidia", gpus=[0], gpu_mib=12000)
    host.gpus(("0000:41:00.0", "GPU-a"))
    host.write("proc/100/cgroup", "0::/x\n")
    host.standin("nvidia-smi", "#!/bin/sh\n")
    done = host.run("wait-ready")
    assert_refused(done, "chat holds 0 MiB on GPU 0 (0000:41:00.0)")
    assert "first token" in done.stdout
