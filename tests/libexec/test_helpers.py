"""wait-ready and drain, run as programs against a small server in every mood a model server has."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

HELPERS = Path(__file__).resolve().parents[2] / "templates" / "libexec"
KEY = "sk-this-is-the-secret"
GOOD = {"model": "chat", "choices": [{"message": {"content": "x"}}], "usage": {"completion_tokens": 1}}


@dataclass
class Server:
    """What it answers, and what it was asked."""

    healthy_at: float = 0.0
    status: int = 200
    body: Any = field(default_factory=lambda: dict(GOOD))
    delay_s: float = 0.0
    # Requests in flight, told one number per question; the last one stays.
    processing: list[int] = field(default_factory=lambda: [0])
    deferred: int = 0
    url: str = ""
    asked: list[tuple[str, str | None, Any]] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, str]:
        if path == "/health":
            return (200, "ok") if time.monotonic() >= self.healthy_at else (503, '{"error": "Loading model"}')
        time.sleep(self.delay_s)
        if path == "/metrics":
            busy = self.processing.pop(0) if len(self.processing) > 1 else self.processing[0]
            lines = [
                "# HELP llamacpp:requests_processing Number of requests processing.",
                f"llamacpp:requests_processing {busy}",
                f"llamacpp:requests_deferred {self.deferred}",
                "llamacpp:prompt_tokens_total 5000",
            ]
            return self.status, "\n".join(lines)
        return self.status, self.body if isinstance(self.body, str) else json.dumps(self.body)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            asked = json.loads(self.rfile.read(length)) if length else None
            made.asked.append((self.path, self.headers.get("Authorization"), asked))
            status, text = made.answer(self.path)
            try:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())
            except ConnectionError:
                pass  # whoever asked has given up, which is what some tests are about

        do_POST = do_GET  # noqa: N815  the name is the base class's

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.block_on_close = False
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        made.url = f"http://127.0.0.1:{http.server_port}"
        try:
            yield made
        finally:
            http.shutdown()
            thread.join()


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    key = tmp_path / "api-key"
    key.write_text(f"{KEY}\n")

    def start(name: str, *arguments: object, key_file: Path = key, **environment: str) -> Any:
        command = [str(HELPERS / name), *map(str, arguments), str(key_file)]
        variables = {"PATH": os.environ["PATH"]} | environment
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=60)

    return start


def assert_refused(done: subprocess.CompletedProcess[str], reason: str) -> None:
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert KEY not in done.stderr + done.stdout


# wait-ready


def test_a_server_that_answers_is_ready(server, run):
    done = run("wait-ready", server.url, "chat", 10)
    assert (done.returncode, done.stderr) == (0, "")
    (path, authorization, asked) = server.asked[-1]
    assert (path, authorization) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert (asked["model"], asked["max_tokens"]) == ("chat", 1)
    assert KEY not in done.stdout


def test_a_server_that_becomes_healthy_late_is_waited_for_and_each_state_told_once(server, run):
    server.healthy_at = time.monotonic() + 1.5
    done = run("wait-ready", server.url, "chat", 10)
    assert done.returncode == 0
    assert done.stdout.count("Loading model") == 1
    assert [path for path, _, _ in server.asked].count("/health") >= 2


def test_a_server_that_never_becomes_healthy_is_given_up_at_the_deadline(server, run):
    server.healthy_at = time.monotonic() + 1000
    started = time.monotonic()
    assert_refused(run("wait-ready", server.url, "chat", 1), "Loading model")
    assert time.monotonic() - started < 6


def test_a_port_that_is_not_open_is_told(run):
    assert_refused(run("wait-ready", "http://127.0.0.1:9", "chat", 1), "port not open")


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
def test_a_healthy_server_that_gives_no_token_is_not_ready(server, run, status, body, reason):
    server.status, server.body = status, body
    assert_refused(run("wait-ready", server.url, "chat", 10), reason)


def test_a_completion_that_hangs_is_given_up_at_the_deadline(server, run):
    server.delay_s = 20
    started = time.monotonic()
    assert_refused(run("wait-ready", server.url, "chat", 2), "timed out")
    assert time.monotonic() - started < 8


def test_a_server_process_that_has_exited_is_not_waited_for(server, run):
    server.healthy_at = time.monotonic() + 1000
    gone = subprocess.Popen(["true"])
    gone.wait()
    started = time.monotonic()
    assert_refused(run("wait-ready", server.url, "chat", 50, MAINPID=str(gone.pid)), "exited")
    assert time.monotonic() - started < 10


def test_a_server_process_that_is_there_is_waited_for(server, run):
    assert run("wait-ready", server.url, "chat", 10, MAINPID=str(os.getpid())).returncode == 0


@pytest.mark.parametrize("name", ["wait-ready", "drain"])
def test_proxies_of_the_environment_are_not_used(server, run, name):
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"), "http://127.0.0.1:9")
    arguments = [server.url, "chat", 5] if name == "wait-ready" else [server.url, 5]
    assert run(name, *arguments, **proxies).returncode == 0
    assert server.asked


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("wait-ready", []),
        ("wait-ready", ["http://127.0.0.1:9", "chat"]),
        ("wait-ready", ["http://127.0.0.1:9", "chat", "soon"]),
        ("wait-ready", ["http://127.0.0.1:9", "chat", "-1"]),
        ("wait-ready", ["http://127.0.0.1:9", "chat", "1", "more"]),
        ("drain", []),
        ("drain", ["http://127.0.0.1:9", "x"]),
        ("drain", ["http://127.0.0.1:9", "1", "more"]),
    ],
)
def test_wrong_arguments_are_answered_with_the_usage(run, name, arguments):
    done = run(name, *arguments)
    assert done.returncode == 64
    assert done.stderr.startswith(f"{name} URL ")


def test_a_missing_key_is_told(server, run, tmp_path):
    assert_refused(run("wait-ready", server.url, "chat", 5, key_file=tmp_path / "missing"), "missing")


# drain


def test_a_server_with_nothing_to_do_is_drained_at_once(server, run):
    done = run("drain", server.url, 30)
    assert (done.returncode, done.stderr) == (0, "")
    assert [(path, authorization) for path, authorization, _ in server.asked] == [("/metrics", f"Bearer {KEY}")]


def test_requests_in_flight_are_waited_for(server, run):
    server.processing = [2, 1, 1, 0]
    assert run("drain", server.url, 30).returncode == 0
    assert len(server.asked) == 4


def test_queued_requests_are_waited_for(server, run):
    server.deferred = 1
    done = run("drain", server.url, 1)
    assert "1 requests still in flight" in done.stderr


def test_requests_that_do_not_end_are_given_up_at_the_deadline(server, run):
    server.processing = [3]
    started = time.monotonic()
    done = run("drain", server.url, 1)
    assert done.returncode == 0
    assert "3 requests still in flight" in done.stderr
    assert 1 <= time.monotonic() - started < 5


@pytest.mark.parametrize("status", [401, 500])
def test_a_server_that_tells_nothing_is_not_waited_for(server, run, status):
    server.status = status
    assert run("drain", server.url, 30).returncode == 0
    assert len(server.asked) == 1


def test_a_server_that_is_gone_is_not_waited_for(run, tmp_path):
    assert run("drain", "http://127.0.0.1:9", 30).returncode == 0
    assert run("drain", "http://127.0.0.1:9", 30, key_file=tmp_path / "missing").returncode == 0


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nhalf"]
)
def test_something_else_behind_the_port_is_no_exception(run, said):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(said)

        threading.Thread(target=talk, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        drained, ready = run("drain", url, 1), run("wait-ready", url, "chat", 1)
        listener.shutdown(socket.SHUT_RDWR)
    assert (drained.returncode, "Traceback" in drained.stderr) == (0, False)
    assert_refused(ready, "wait-ready:")
