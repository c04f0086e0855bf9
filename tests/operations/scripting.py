"""Run the scripts of operations as a host does: on standard input, without our environment."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rackserve.operations.commands import script

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


def start(name: str, *arguments: object, token: str | None = None) -> subprocess.Popen[str]:
    """token: of the model hub, as for files that operations.fetch has fetched."""
    process = subprocess.Popen(
        ["sh", "-s", "--", *map(str, arguments)],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    (text,) = script(name, token=token).connector_arguments["_stdin"]
    process.stdin.write(text)
    process.stdin.close()
    process.stdin = None
    return process


def run(name: str, *arguments: object, token: str | None = None) -> subprocess.CompletedProcess[str]:
    process = start(name, *arguments, token=token)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@dataclass
class FileServer:
    """An HTTP server for one file, in the moods that file servers have. token: without it the file is not given out."""

    content: bytes
    ranges: bool = True
    status: int = 200
    delay_s: float = 0.0
    # Headers promise all of it, the connection ends after this many bytes.
    cut_after: int | None = None
    token: str = ""
    # Where it sends on to instead of giving out the file.
    sent_on_to: str = ""
    asked: list[str | None] = field(default_factory=list)
    # What each request was authorized with.
    authorized: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.asked.append(wanted)
        time.sleep(self.delay_s)
        first = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted and self.ranges else 0
        self.authorized.append(handler.headers.get("Authorization"))
        allowed = not self.token or handler.headers.get("Authorization") == f"Bearer {self.token}"
        if self.status != 200 or not allowed:
            handler.send_response(self.status if allowed else 401)
            body = b"no"
        elif self.sent_on_to:
            handler.send_response(302)
            handler.send_header("Location", self.sent_on_to)
            body = b""
        elif first >= len(self.content) and first:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.content)}")
            body = b""
        else:
            body = self.content[first:]
            handler.send_response(206 if first else 200)
            if first:
                handler.send_header("Content-Range", f"bytes {first}-{len(self.content) - 1}/{len(self.content)}")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: self.cut_after])


@contextmanager
def serving(server: FileServer) -> Iterator[FileServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with _listening(Handler) as address:
        server.url = f"{address}/model.gguf"
        yield server


@dataclass
class Mirror:
    """An HTTP server for a folder. status: of every answer but the key's. ahead_s: how far its clock is.

    once: what comes first instead of a file, by the file's path in the URL.
    """

    folder: Path
    status: int = 200
    ahead_s: int = 0
    once: dict[str, bytes] = field(default_factory=dict)
    url: str = ""


@contextmanager
def mirroring(folder: Path) -> Iterator[Mirror]:
    mirror = Mirror(folder)

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def do_GET(self) -> None:
            # Files that change twice in a second are two, which times in whole seconds do not show.
            del self.headers["If-Modified-Since"]
            if mirror.status != 200 and not self.path.endswith(".pub"):
                self.send_error(mirror.status)
            elif self.path in mirror.once:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(mirror.once.pop(self.path))
            else:
                super().do_GET()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(time.time() + mirror.ahead_s if timestamp is None else timestamp)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with _listening(Handler) as address:
        mirror.url = f"{address}/"
        yield mirror


@contextmanager
def _listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()
