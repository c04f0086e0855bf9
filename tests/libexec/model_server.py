"""A small server in every mood that a model server has, on a port of its own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = {"model": "chat", "choices": [{"message": {"content": "x"}}], "usage": {"completion_tokens": 1}}
# Some of what vLLM and llama-server tell.
METRICS = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="chat"}} {running}
vllm:num_requests_running{{engine="1",model_name="a }} 7 b"}} 0.0 1732600000000
vllm:num_requests_running_total 99.0
vllm:num_requests_waiting {waiting}
vllm:generation_tokens_total{{engine="0"}} {tokens}
vllm:generation_tokens_created{{engine="0"}} 1.7e9
"""


@dataclass
class ModelServer:
    """What it answers, and what it was asked: path, Authorization, body.

    statuses: one per completion, the last one stays. running: requests in flight, one number per question, likewise.
    """

    healthy_at: float = 0.0
    statuses: list[int] = field(default_factory=lambda: [200])
    body: Any = field(default_factory=lambda: dict(GOOD))
    delay_s: float = 0.0
    metrics_status: int = 200
    metrics_delay_s: float = 0.0
    running: list[int] = field(default_factory=lambda: [0])
    waiting: int = 0
    tokens: int = 0
    url: str = ""
    asked: list[tuple[str, str | None, Any]] = field(default_factory=list)
    on_completion: Callable[[], object] = lambda: None

    @property
    def paths(self) -> list[str]:
        return [path for path, _, _ in self.asked]

    def answer(self, path: str) -> tuple[int, str]:
        if path in {"/health", "/"}:
            return (200, "ok") if time.monotonic() >= self.healthy_at else (503, '{"error": "Loading model"}')
        if path == "/metrics":
            time.sleep(self.metrics_delay_s)
            running = _next(self.running)
            return self.metrics_status, METRICS.format(running=running, waiting=self.waiting, tokens=self.tokens)
        self.on_completion()
        time.sleep(self.delay_s)
        return _next(self.statuses), self.body if isinstance(self.body, str) else json.dumps(self.body)


def _next(values: list[int]) -> int:
    return values.pop(0) if len(values) > 1 else values[0]


@contextmanager
def serving(model: ModelServer) -> Iterator[ModelServer]:
    """Have it answer on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            asked = json.loads(self.rfile.read(length)) if length else None
            model.asked.append((self.path, self.headers.get("Authorization"), asked))
            status, text = model.answer(self.path)
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
        model.url = f"http://127.0.0.1:{http.server_port}"
        try:
            yield model
        finally:
            http.shutdown()
            thread.join()
