"""health of a part of an instance over several hosts, which answers nobody: whether its head is still there."""

from __future__ import annotations

import pytest

from tests.libexec.helper_host import UNIT, HelperHost

KILL = [f"kill --signal=SIGKILL -- {UNIT}"]
HEADING = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
# As a worker of vLLM 0.32 in another network namespace showed it: 10.77.0.2 to 10.77.0.1:29501.
REMOTE = "0000000000000000FFFF000001004D0A:733D"
LOCAL = "0000000000000000FFFF000002004D0A:D77C"
ESTABLISHED, CLOSE_WAIT, LISTEN = "01", "08", "0A"


@pytest.fixture
def part(host: HelperHost) -> HelperHost:
    host.service(url=None, joins="10.77.0.1:29501", metrics=None, key_file=None)
    connected(host)
    return host


def connected(host: HelperHost, *states: str, remote: str = REMOTE) -> None:
    rows = "".join(
        f"   {n}: {LOCAL} {remote} {state} 00000000:00000000 00:0 0 0 0 1 1\n" for n, state in enumerate(states)
    )
    host.write("proc/net/tcp", HEADING)
    host.write("proc/net/tcp6", HEADING + rows)


def test_a_part_that_waits_for_its_head_is_well(part):
    for _ in range(5):
        done = part.run("health")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert part.kills == []


def test_a_part_that_has_met_its_head_is_well(part):
    connected(part, ESTABLISHED)
    for _ in range(5):
        assert part.run("health").returncode == 0
    assert part.kills == []


def test_a_part_whose_head_has_closed_the_connection_is_killed_at_once(part):
    connected(part, CLOSE_WAIT)
    done = part.run("health")
    assert done.returncode == 1
    assert "its head at 10.77.0.1:29501 has gone" in done.stderr
    assert part.kills == KILL


def test_a_part_that_lost_its_head_without_a_trace_is_killed(part):
    connected(part, ESTABLISHED)
    part.run("health")
    connected(part)
    assert part.run("health").returncode == 1
    assert part.kills == KILL


def test_a_part_that_was_started_anew_waits_again(part):
    connected(part, ESTABLISHED)
    part.run("health")
    connected(part)
    part.state(pid=101)
    assert part.run("health").returncode == 0
    assert part.kills == []


def test_connections_to_others_are_not_the_heads(part):
    connected(part, CLOSE_WAIT, remote="0000000000000000FFFF000001004D0A:733E")
    assert part.run("health").returncode == 0
    connected(part, CLOSE_WAIT, remote="0000000000000000FFFF000003004D0A:733D")
    assert part.run("health").returncode == 0
    assert part.kills == []


def test_a_connection_of_ipv4_counts_like_one_of_ipv6(part):
    part.write("proc/net/tcp", f"{HEADING}   0: 02004D0A:D77C 01004D0A:733D 08 0:0 0:0 0 0 0 1 1\n")
    assert part.run("health").returncode == 1


def test_a_part_that_looks_after_itself_is_left_alone(part):
    part.service(url=None, joins=None, metrics=None, key_file=None)
    connected(part, CLOSE_WAIT)
    assert part.run("health").returncode == 0
    assert part.kills == []


def test_a_part_that_is_stopped_is_not_looked_at(part):
    connected(part, CLOSE_WAIT)
    part.state("inactive", "dead", 0)
    assert part.run("health").returncode == 0
    assert part.kills == []
