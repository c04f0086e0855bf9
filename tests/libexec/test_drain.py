"""drain, run as a program against a small server."""

from __future__ import annotations

import time

import pytest

from tests.libexec.helper_host import KEY

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def test_a_server_with_nothing_to_do_is_drained_at_once(server, host):
    done = host.run("drain")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [(path, authorization) for path, authorization, _ in server.asked] == [("/metrics", None)]


def test_metrics_that_want_the_key_get_it(server, host):
    host.service(metrics_key=True)
    host.run("drain")
    assert server.asked[0][:2] == ("/metrics", f"Bearer {KEY}")


def test_requests_in_flight_are_waited_for(server, host):
    server.running = [2, 1, 1, 0]
    assert host.run("drain").returncode == 0
    assert len(server.asked) == 4


def test_queued_requests_are_waited_for(server, host):
    server.waiting = 1
    host.service(drain_s=1)
    assert "1 requests in flight after 1 s" in host.run("drain").stderr


def test_requests_that_do_not_end_are_given_up_at_the_deadline(server, host):
    server.running = [3]
    host.service(drain_s=1)
    started = time.monotonic()
    done = host.run("drain")
    assert done.returncode == 0
    assert "3 requests in flight after 1 s, stopping anyway" in done.stderr
    assert 1 <= time.monotonic() - started < 5


def test_a_server_too_busy_to_tell_is_waited_for(server, host):
    host.quick("drain", METRICS_S=0.3)
    host.service(drain_s=1)
    server.metrics_delay_s = 2
    done = host.run("drain")
    assert (done.returncode, len(server.asked) >= 2) == (0, True)
    assert "unknown number of requests" in done.stderr


def connection(local: str, port: int, state: str, remote: str = "0100007F:D2F0") -> str:
    return f"   0: {local}:{port:04X} {remote} {state} 00000000:00000000 00:00000000 00000000     0        0 1\n"


def test_a_server_without_metrics_is_waited_for_by_its_connections(server, host):
    port = int(server.url.rpartition(":")[2])
    host.service(metrics=None, in_flight=[], drain_s=1)
    ours = connection("0100007F", port, "01")
    others = connection("0100007F", port + 1, "01") + connection("00000000", port, "0A") + connection("0A", port, "06")
    host.write("proc/net/tcp", HEADER + others + ours)
    host.write("proc/net/tcp6", HEADER + connection("0" * 32, port, "01", f"{'0' * 32}:D2F0"))
    done = host.run("drain")
    assert "2 connections open after 1 s" in done.stderr
    assert f"open connections to port {port} are waited for" in done.stdout
    host.write("proc/net/tcp", HEADER + others)
    host.write("proc/net/tcp6", HEADER)
    assert (host.run("drain").stderr, server.asked) == ("", [])


@pytest.mark.parametrize(
    ("change", "words"),
    [({"metrics_status": 401}, "HTTP 401"), ({"metrics_status": 500}, "HTTP 500"), ({}, "HTTP 200")],
)
def test_a_server_that_tells_nothing_is_waited_for_by_its_connections(server, host, change, words):
    for name, value in change.items():
        setattr(server, name, value)
    host.service(in_flight=["renamed_since"])
    host.write("proc/net/tcp", HEADER)
    done = host.run("drain")
    assert (done.returncode, done.stderr) == (0, "")
    assert words in done.stdout


def test_a_server_that_is_gone_is_not_waited_for(host):
    host.service(url="http://127.0.0.1:9")
    done = host.run("drain")
    assert done.returncode == 0
    assert "nothing to wait for" in done.stderr


def test_stopping_goes_on_whatever_is_missing(host):
    host.service(key_file=str(host.root / "missing"))
    assert host.run("drain").returncode == 0
    (host.root / "etc/rackserve/services/chat.json").unlink()
    done = host.run("drain")
    assert done.returncode == 0
    assert "chat.json cannot be read" in done.stderr
