"""Talk to a service on a lab host as its clients do."""

from __future__ import annotations

import json
import shlex
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rackserve.lab.lab import Lab
from tests.contract.llama_options import command_lines, unknown
from tests.lab.deploying import Site

# What an answer has to keep to where this is asked for.
COLOURS, COUNTS = ("red", "green", "blue"), (1, 2, 3)
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": COLOURS}, "count": {"enum": COUNTS}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}
IN_SCHEMA = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
# Of a stream that a stop falls into: the slowest machine is done with them before the stop loses its patience.
STREAM_TOKENS = 300
# Some milliseconds. A process that sleeps them takes a quarter of a second to begin and end on a busy machine.
# systemd would put a variable of its own for `$n`.
MOMENT = "n=0; while [ $((n)) -lt 5000 ]; do n=$((n + 1)); done"


@dataclass
class Client:
    """A client with the service's key, on the machine that the lab runs on."""

    url: str
    key: str
    model: str = "chat"

    def ask(self, timeout: float = 120, **body: Any) -> tuple[int, dict[str, Any]]:
        """Status and answer of a chat completion."""
        try:
            with urllib.request.urlopen(self._request(**body), timeout=timeout) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")

    def _request(self, **body: Any) -> urllib.request.Request:
        message = {"model": self.model, "messages": [{"role": "user", "content": "count to ten"}]} | body
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        return urllib.request.Request(f"{self.url}/v1/chat/completions", json.dumps(message).encode(), headers)

    def stream(self, **body: Any) -> Stream:
        """A stream that is read in the background."""
        return Stream(self._request(stream=True, **body))


@dataclass
class Stream:
    """Chunks of an answer as they come; `done` once the server has said so, `error` where it broke off."""

    request: urllib.request.Request
    chunks: int = 0
    done: bool = False
    error: str = ""
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            with urllib.request.urlopen(self.request, timeout=120) as answer:
                for line in answer:
                    self.done |= line.strip() == b"data: [DONE]"
                    self.chunks += line.startswith(b"data: {")
        except (OSError, ValueError) as error:
            self.error = repr(error)

    def started(self, seconds: float = 60) -> None:
        """Wait until it has begun."""
        deadline = time.monotonic() + seconds
        while not self.chunks:
            assert time.monotonic() < deadline, self.error or "no chunk came"
            time.sleep(0.02)

    def finish(self, seconds: float = 120) -> None:
        """Wait until it has ended, one way or the other."""
        self.thread.join(seconds)
        assert not self.thread.is_alive()


def keeps_to_schema(text: str) -> bool:
    """Whether an answer that IN_SCHEMA was asked of is as it says."""
    said = json.loads(text)
    return set(said) == {"colour", "count"} and said["colour"] in COLOURS and said["count"] in COUNTS


def client_of(lab: Lab, host: str, service: str = "chat", port: int = 8001) -> Client:
    """A client with the key that the host keeps."""
    key = lab.ssh(host, f"cat /etc/rackserve/credentials/{service}/api-key").stdout.strip()
    return Client(f"http://{lab.address(host)}:{port}", key, service)


def unit_state(lab: Lab, host: str, service: str = "chat") -> dict[str, str]:
    """What systemd knows of a service."""
    shown = lab.ssh(host, f"systemctl show -p ActiveState,SubState,Result,NRestarts,MainPID rackserve@{service}").stdout
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def wait_for(lab: Lab, host: str, seconds: float, service: str = "chat", **wanted: str) -> dict[str, str]:
    """Wait until the unit is as wanted, and return all of its state."""
    deadline = time.monotonic() + seconds
    while True:
        state = unit_state(lab, host, service)
        if wanted.items() <= state.items():
            return state
        assert time.monotonic() < deadline, f"{state}, expected {wanted}"
        time.sleep(0.5)


def takes_all(site: Site, host: str) -> None:
    """Have the host's own llama-server read every command line that can be planned for it, each up to its end."""
    program = "/opt/rackserve/current/llama.cpp/bin/llama-server"
    assert unknown(site.lab.ssh(host, f"{program} --help").stdout) == set()
    lines = command_lines(program, "/etc/rackserve/credentials/chat/api-key")
    assert len(lines) > 50
    tried = (
        f"{line} >/tmp/said 2>&1 || {{ echo {number}; tail -n 2 /tmp/said; }}" for number, line in enumerate(lines)
    )
    assert site.lab.ssh(host, "sh", input="\n".join(tried)).stdout == ""


@contextmanager
def braked(lab: Lab, host: str, pid: str, pause_s: float = 2) -> Iterator[None]:
    """Let a process compute for a few milliseconds now and then only, whatever machine it is on."""
    brake = f"while kill -STOP {pid}; do sleep {pause_s}; kill -CONT {pid}; {MOMENT}; done"
    lab.ssh(host, f"systemd-run --quiet --unit=brake --collect sh -c {shlex.quote(brake)}")
    try:
        yield
    finally:
        lab.ssh(host, f"systemctl stop brake; kill -CONT {pid}")


def process_of(lab: Lab, host: str, words: str) -> str:
    """The process that has these words in its command line."""
    # The brackets keep the asking shell out.
    (pid,) = lab.ssh(host, f"pgrep -f '[{words[0]}]{words[1:]}'").stdout.split()
    return pid


def outlives(
    lab: Lab, host: str, client: Client, process: str, stop: Callable[[], object], *, tokens: int = STREAM_TOKENS
) -> None:
    """Have `stop` take the server away under a stream: the stream ends first.

    process: what the command line of the one that computes has in it. It goes on with that once the stop is under way.
    """
    pid = process_of(lab, host, process)
    with braked(lab, host, pid):
        stream = client.stream(max_tokens=tokens, ignore_eos=True)
        stream.started()
        # Not a token more, however long the stop takes to begin.
        lab.ssh(host, f"systemctl kill -s STOP brake; kill -STOP {pid}")
        stop()
        wait_for(lab, host, 240, ActiveState="deactivating")
        before = stream.chunks
        assert not stream.done
    stream.finish()
    assert stream.done, stream.error
    assert stream.chunks > before


def told_to_stop(lab: Lab, host: str) -> None:
    """Have the service stop, without waiting for it."""
    lab.ssh(host, "systemctl stop --no-block rackserve@chat")
