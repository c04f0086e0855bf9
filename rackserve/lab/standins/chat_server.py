# ruff: noqa: INP001 (copied into stand-in archives, beside the programs that import it)
"""What the stand-ins for model servers share: HTTP, answers that are numbers, and memory of simulated GPUs.

Stand-ins only: they act out how the real servers are set up, asked and stopped, and compute nothing.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

# Slow enough that a stop falls into a stream.
TOKENS_PER_S = 20
DEFAULT_TOKENS = 16
DRIVER = Path("/sys/module/nvidia/version")
# What nvidia-smi, as lab hosts have it, reads: a line for each card with its UUID, a process and MiB.
CLAIMS = ".lab-gpu-memory"
DONE = b"data: [DONE]\n\n"


def fail(message: str) -> NoReturn:
    """End with this message."""
    sys.stderr.write(f"{message}\n")
    sys.exit(1)


def visible_cards() -> list[str]:
    """UUIDs of the cards that it may use, as the real ones are told them; none where no driver is loaded.

    Whether there are such cards is for nvidia-smi to say: a sandbox does not see the simulated driver's files.
    """
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if DRIVER.exists() else []


def claim(size_bytes: int) -> int:
    """Hold so much memory on each visible card; how many there are."""
    cards, mib = visible_cards(), max(1, size_bytes >> 20)
    lines = "".join(f"{uuid} {os.getpid()} {mib}\n" for uuid in cards)
    # HOME may be where a release keeps what it compiles.
    Path(os.environ.get("STATE_DIRECTORY") or os.environ["HOME"], CLAIMS).write_text(lines)
    return len(cards)


class Handler(BaseHTTPRequestHandler, ABC):
    """A request; a server defines `get` and `post`, which answer with a status and a JSON value."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        self._reply(*self.get(self.path))

    def do_POST(self) -> None:
        """Answer; a stream where the request wants one."""
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        except ValueError:
            self._reply(400, {"error": "no JSON"})
            return
        self._reply(*self.post(self.path, body))

    def do_DELETE(self) -> None:
        """As a POST."""
        self.do_POST()

    @abstractmethod
    def get(self, path: str) -> tuple[int, Any]:
        """Status and answer."""

    @abstractmethod
    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and answer; an iterator is streamed."""

    def _reply(self, status: int, answer: Any) -> None:
        self.send_response(status)
        if isinstance(answer, Iterator):
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for event in answer:
                self.wfile.write(event)
                self.wfile.flush()
            self.close_connection = True
            return
        content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing: the journal shows what a server says by itself."""


def completion(body: dict[str, Any], most: int, slots: threading.Semaphore) -> Any:
    """The answer to a chat completion, of numbers; most: tokens of a request that states none, -1 for some."""
    count = body.get("max_tokens") or (most if most > 0 else DEFAULT_TOKENS)
    if body.get("stream"):
        return _events(str(body["model"]), count, slots)
    with slots:
        time.sleep(count / TOKENS_PER_S)
    message = {"role": "assistant", "content": " ".join(map(str, range(1, count + 1)))}
    usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}
    choices = [{"index": 0, "message": message, "finish_reason": "length"}]
    return {"object": "chat.completion", "model": body["model"], "choices": choices, "usage": usage}


def _events(model: str, count: int, slots: threading.Semaphore) -> Iterator[bytes]:
    with slots:
        for number in range(1, count + 1):
            time.sleep(1 / TOKENS_PER_S)
            delta = {"index": 0, "delta": {"content": f"{number} "}}
            chunk = {"object": "chat.completion.chunk", "model": model, "choices": [delta]}
            yield f"data: {json.dumps(chunk)}\n\n".encode()
    yield DONE


def listening(handler: type[Handler], host: str, port: int) -> ThreadingHTTPServer:
    """Listen, or end as the real ones do where the port is taken."""
    try:
        server = ThreadingHTTPServer((host, port), handler)
    except OSError as error:
        fail(f"listen tcp {host}:{port}: {error}")
    server.daemon_threads = True
    return server


def until_told(*servers: ThreadingHTTPServer) -> None:
    """Serve until SIGTERM, which cuts off whatever is under way."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    servers[0].serve_forever()
