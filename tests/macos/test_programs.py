"""wait-ready, drain and health as macOS gets them: real curl, real servers, in dash and in bash as macOS has it."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.macos.conftest import KEY
from tests.macos.mac import Mac, each_shell, until

JOB = "io.rackserve.chat"
CONF = "/etc/rackserve/services/chat.conf"
PLIST = f"/Library/LaunchDaemons/{JOB}.plist"


@pytest.fixture
def serving(mac) -> Mac:
    """A Mac on which the service runs."""
    load(mac)
    until(lambda: mac.path("/var/log/rackserve/chat.log").read_text(), "the server listens")
    return mac


def load(mac: Mac) -> None:
    mac.path("/var/log/rackserve").mkdir()
    mac.launchctl("bootstrap", "system", str(mac.path(PLIST)))
    until(lambda: "runs = 0" not in mac.launchctl("print", f"system/{JOB}"), "the job has begun")


def change(mac: Mac, old: str, new: str) -> None:
    text = mac.path(CONF).read_text()
    assert old in text
    mac.path(CONF).write_text(text.replace(old, new))


# what they share


@each_shell
@pytest.mark.parametrize("program", ["wait-ready", "drain", "health"])
def test_a_name_that_is_none_is_refused(mac, program, shell):
    for name in ("", "../chat", "Chat", "chat x", "chat\n", "$(id)"):
        done = mac.program(shell, program, name)
        assert (done.returncode, done.stderr) == (64, f"{program}: usage: {program} NAME\n")


@each_shell
@pytest.mark.parametrize("program", ["wait-ready", "drain", "health"])
def test_a_service_that_is_not_there_is_told(mac, program, shell):
    done = mac.program(shell, program, "other")
    assert done.returncode == 66
    assert "other.conf cannot be read: run deploys/serve.py" in done.stderr


def test_a_service_file_without_what_is_needed_is_told(mac):
    lines = mac.path(CONF).read_text().splitlines(keepends=True)
    for line in ("url", "label", "start_s", "drain_s"):
        mac.path(CONF).write_text("".join(text for text in lines if not text.startswith(f"{line} ")))
        done = mac.program("dash", "wait-ready", "chat")
        assert done.returncode == 66
        assert line in done.stderr


def test_a_key_that_is_not_there_is_told(mac):
    mac.path("/etc/rackserve/credentials/chat/api-key").unlink()
    done = mac.program("dash", "health", "chat")
    assert done.returncode == 1
    assert "the key cannot be read" in done.stderr


# wait-ready


@each_shell
def test_a_server_that_answers_is_ready_and_its_key_is_in_no_command_line(serving, shell):
    serving.tool("curl", '#!/bin/sh\ntr "\\0" " " </proc/$$/environ >>"$MAC_STATE/seen"\n'
                         'echo "$@" >>"$MAC_STATE/seen"\nexec /usr/bin/curl "$@"\n')  # fmt: skip
    done = serving.program(shell, "wait-ready", "chat")
    assert (done.returncode, done.stderr) == (0, "")
    assert "first token after" in done.stdout
    seen = (serving.state / "seen").read_text()
    assert "/v1/chat/completions" in seen
    assert KEY[:6] not in seen


@each_shell
@pytest.mark.parametrize(
    ("mood", "sentence"),
    [
        ({"completion": 500}, "completion: HTTP 500"),
        ({"model": "another"}, "completion: not answered by chat"),
        ({"model": "another", "text": '"model":"chat"'}, "completion: not answered by chat"),
        ({"tokens": 0, "text": '"completion_tokens":1'}, "completion: no token in"),
    ],
    ids=["error", "model", "model that says so", "no token"],
)
def test_a_server_that_listens_and_does_not_compute_is_not_ready(serving, mood, sentence, shell):
    serving.set_mood(**mood)
    done = serving.program(shell, "wait-ready", "chat")
    assert done.returncode == 1
    assert sentence in done.stderr


def test_another_key_than_the_servers_is_told(serving):
    # The server reads its key from where it was told, which is not where the program looks now.
    other = serving.path("/etc/rackserve/credentials/chat/other")
    other.write_text("sk-another-key\n")
    change(serving, "chat/api-key", "chat/other")
    done = serving.program("dash", "wait-ready", "chat")
    assert done.returncode == 1
    assert "completion: HTTP 401" in done.stderr


@each_shell
def test_a_load_is_waited_for_and_each_state_is_told_once(serving, shell):
    serving.set_mood(health=503)
    timer = threading.Timer(2, serving.set_mood)
    timer.start()
    done = serving.program(shell, "wait-ready", "chat")
    timer.join()
    assert done.returncode == 0
    assert done.stdout.count("HTTP 503") == 1


@each_shell
def test_a_service_that_launchd_does_not_have_is_told(mac, shell):
    done = mac.program(shell, "wait-ready", "chat")
    assert (done.returncode, done.stderr) == (1, f"wait-ready: launchd does not have {JOB}\n")


def test_a_server_that_was_restarted_long_ago_is_ready_all_the_same(serving):
    pid = serving.pid(JOB)
    serving.launchctl("kickstart", "-k", f"system/{JOB}")
    until(lambda: serving.pid(JOB) not in (0, pid), "it runs again")
    assert "last terminating signal = Killed: 9" in serving.launchctl("print", f"system/{JOB}")
    assert serving.program("dash", "wait-ready", "chat").returncode == 0


# drain


@each_shell
def test_draining_waits_for_what_is_in_flight(serving, shell):
    serving.set_mood(busy=2)
    timer = threading.Timer(1, serving.set_mood)
    timer.start()
    done = serving.program(shell, "drain", "chat")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert timer.finished.is_set()
    timer.join()


@each_shell
def test_draining_a_server_that_is_gone_ends_at_once(mac, shell):
    done = mac.program(shell, "drain", "chat")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@each_shell
def test_draining_a_server_without_metrics_waits_for_open_connections(serving, shell):
    change(serving, "metrics /metrics\n", "")
    assert serving.program(shell, "drain", "chat").stderr == ""
    address = ("127.0.0.1", int(serving.path(CONF).read_text().partition("url http://127.0.0.1:")[2].split()[0]))
    with socket.create_connection(address) as connection:
        timer = threading.Timer(1, lambda: connection.shutdown(socket.SHUT_RDWR))
        timer.start()
        done = serving.program(shell, "drain", "chat")
        assert timer.finished.is_set()
        timer.join()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    change(serving, "drain_s 30", "drain_s 1")
    with socket.create_connection(address):
        done = serving.program(shell, "drain", "chat")
    assert (done.returncode, done.stderr) == (0, "drain: open connections after 1 s: 1; stopping anyway\n")


# health


def looks(mac: Mac, shell: str, times: int) -> list[int]:
    return [mac.program(shell, "health", "chat").returncode for _ in range(times)]


@each_shell
def test_a_server_that_answers_is_healthy_and_nothing_is_said(serving, shell):
    done = serving.program(shell, "health", "chat")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert serving.calls("kickstart") == []


@each_shell
def test_a_server_that_hangs_is_killed_at_the_third_look_and_no_sooner(serving, shell):
    assert looks(serving, shell, 1) == [0]
    pid = serving.pid(JOB)
    serving.set_mood(completion=500)
    assert looks(serving, shell, 2) == [1, 1]
    assert serving.calls("kickstart") == []
    done = serving.program(shell, "health", "chat")
    assert done.returncode == 1
    assert "look 3 of 3 without an answer" in done.stderr
    assert serving.calls("kickstart") == [f"kickstart -k system/{JOB}"]
    until(lambda: serving.pid(JOB) not in (0, pid), "it runs again")
    # The new process begins with a clean slate, and with time to load.
    assert looks(serving, shell, 3) == [0, 0, 0]
    assert len(serving.calls("kickstart")) == 1


@each_shell
def test_a_server_that_computes_is_busy_and_lives(serving, shell):
    assert looks(serving, shell, 1) == [0]
    for worked in range(1, 6):
        serving.set_mood(completion=503, worked=worked * 100)
        done = serving.program(shell, "health", "chat")
        # The first look measured before it stopped to answer.
        assert done.returncode == 0
        assert f"to {worked * 200} " in done.stderr
    assert serving.calls("kickstart") == []


@each_shell
def test_an_answer_in_between_counts_from_the_beginning(serving, shell):
    assert looks(serving, shell, 1) == [0]
    for _ in range(3):
        serving.set_mood(completion=500)
        assert looks(serving, shell, 2) == [1, 1]
        serving.set_mood()
        assert looks(serving, shell, 1) == [0]
    assert serving.calls("kickstart") == []


@each_shell
def test_a_server_that_refuses_is_told_and_not_restarted(serving, shell):
    serving.set_mood(completion=404)
    for _ in range(4):
        done = serving.program(shell, "health", "chat")
        assert done.returncode == 1
        assert "which no restart would mend" in done.stderr
    assert serving.calls("kickstart") == []


@each_shell
def test_a_server_that_loads_is_given_its_time_and_no_more(serving, shell):
    serving.set_mood(completion=503)
    assert looks(serving, shell, 4) == [0, 0, 0, 0]
    assert serving.calls("kickstart") == []
    change(serving, "start_s 900", "start_s 0")
    assert looks(serving, shell, 3) == [1, 1, 1]
    assert len(serving.calls("kickstart")) == 1


@each_shell
def test_a_service_that_is_not_loaded_is_none_of_its_business(mac, shell):
    done = mac.program(shell, "health", "chat")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert mac.calls("kickstart") == []


@each_shell
def test_a_server_that_ended_without_an_error_is_started_again(mac, shell):
    mac.set_mood(ends="yes")
    load(mac)
    until(lambda: "state = not running" in mac.launchctl("print", f"system/{JOB}"), "it has ended")
    mac.set_mood()
    assert looks(mac, shell, 3) == [1, 1, 1]
    assert mac.calls("kickstart") == [f"kickstart system/{JOB}"]
    until(lambda: mac.pid(JOB), "it runs again")


@each_shell
def test_a_server_that_launchd_is_about_to_start_is_left_to_it(mac, shell):
    mac.set_mood(dies="no memory")
    load(mac)
    until(lambda: "state = spawn scheduled" in mac.launchctl("print", f"system/{JOB}"), "it has ended")
    assert looks(mac, shell, 4) == [0, 0, 0, 0]
    assert mac.calls("kickstart") == []


@each_shell
def test_a_server_without_metrics_lives_by_its_cpu_time(serving, shell):
    change(serving, "metrics /metrics\n", "")
    change(serving, "progress llamacpp:", "other llamacpp:")
    seconds = serving.state / "cpu"
    serving.tool("ps", '#!/bin/sh\n[ "$*" = "-U _rackserve-chat -o time=" ] || exit 64\ncat "$MAC_STATE/cpu"\n')
    seconds.write_text("  0:01.50\n 1:00.00\n")
    assert looks(serving, shell, 1) == [0]
    serving.set_mood(completion=500)
    seconds.write_text("  1:02.50\n 1:00.00\n")
    done = serving.program(shell, "health", "chat")
    assert "its work went from 61 to 122" in done.stderr
    # Five seconds more are what a server needs that only waits.
    seconds.write_text("  1:06.50\n 1:00.00\n")
    assert looks(serving, shell, 1) == [1]
    seconds.write_text("1:00:00.00\n")
    assert looks(serving, shell, 1) == [0]


@each_shell
def test_a_log_is_emptied_in_place_when_it_is_long(serving, shell):
    log = serving.path("/var/log/rackserve/chat.log")
    inode, old = log.stat().st_ino, log.read_text()
    looks(serving, shell, 1)
    assert log.read_text() == old
    with log.open("a") as file:
        file.truncate(65 << 20)
    looks(serving, shell, 1)
    assert (log.stat().st_ino, log.stat().st_size) == (inode, 0)
    assert log.with_name("chat.log.1").stat().st_size == 65 << 20
