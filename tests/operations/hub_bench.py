"""A model hub on this machine, in the moods that hubs have, and snapshot.py run against it as a host runs it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from rackserve.operations.snapshot import fetching
from tests.operations.scripting import ENVIRONMENT, _listening

REPO = "acme/Tiny-Chat"
NAME = "acme--Tiny-Chat"
REVISION = "5" * 40
MANIFEST = ".rackserve-manifest.json"
SHARD = "model-00001-of-00002.safetensors"
OTHER_SHARD = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
_SHORTER = (
    ("_TRIES, _PAUSE_S = 3, 2", "_TRIES, _PAUSE_S = 3, 0.1"),
    ("_MOST_PAGES, _LARGEST_ANSWER = 1000", "_MOST_PAGES, _LARGEST_ANSWER = 20"),
)


def noise(size: int, seed: str) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size)


WANTED = {
    "config.json": b'{"model_type": "llama"}\n',
    "generation_config.json": b"{}\n",
    "tokenizer.json": noise(5000, "tokenizer"),
    "tokenizer_config.json": b'{"chat_template": "x"}\n',
    "chat_template.jinja": b"",
    "additional_chat_templates/tools.jinja": b"{{ messages }}\n",
    INDEX: json.dumps({"weight_map": {"a": SHARD, "b": OTHER_SHARD}}).encode(),
    SHARD: noise(300_000, "first"),
    OTHER_SHARD: noise(200_000, "second"),
}
UNWANTED = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "README.md": b"# Tiny\n",
    "modeling_tiny.py": b"import os\n",
    "pytorch_model.bin": noise(100, "bin"),
    "pytorch_model.bin.index.json": b"{}",
    "consolidated.safetensors": noise(400, "twice"),
    "tiny-q4.gguf": noise(100, "gguf"),
    "original/model.safetensors": noise(100, "original"),
    "onnx/model.onnx": noise(100, "onnx"),
}


def entry(path: str, content: bytes, **told: Any) -> dict[str, Any]:
    """A file as a hub lists it: weights as LFS objects, all else as git blobs."""
    blob = hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()
    listed = {"type": "file", "oid": blob, "size": len(content), "path": path}
    if path.endswith(".safetensors"):
        sha256 = hashlib.sha256(content).hexdigest()
        listed |= {"lfs": {"oid": sha256, "size": len(content), "pointerSize": 134}, "xetHash": "0" * 64}
    return listed | told


@dataclass
class HubServer:
    """One repository. `served`: what is sent in place of a file's content. `asked`: path, Range and token of requests.

    listing: what is listed beside `files`. page: entries in one answer. token: what gated files ask for. private: the
    API asks too. cut_after: bytes after which a connection ends, or with `hold` waits for that. cdn: where files are.
    """

    files: dict[str, bytes] = field(default_factory=lambda: {**WANTED, **UNWANTED})
    served: dict[str, bytes] = field(default_factory=dict)
    listing: list[Any] = field(default_factory=list)
    main: str = REVISION
    page: int = 1000
    token: str = ""
    private: bool = False
    ranges: bool = True
    cut_after: int | None = None
    hold: threading.Event | None = None
    cdn: str = ""
    status: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    url: str = ""

    def fetched(self) -> list[str]:
        """The files that were asked for."""
        return [path.partition("/resolve/")[2].partition("/")[2] for path, _, _ in self.asked if "/resolve/" in path]

    def ranges_of(self, name: str) -> list[str | None]:
        return [wanted for path, wanted, _ in self.asked if path.endswith(f"/{name}")]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        address = urllib.parse.urlsplit(handler.path)
        path = urllib.parse.unquote(address.path)
        authorization = handler.headers.get("Authorization")
        self.asked.append((path, handler.headers.get("Range"), authorization))
        api = path.startswith("/api/")
        name = path.partition("/resolve/")[2].partition("/")[2]
        status = self.status.get(name or path, 200)
        if self.token and (self.private or not api) and authorization != f"Bearer {self.token}":
            status = 401 if authorization is None else 403
        if status != 200:
            send(handler, status, b"no")
        elif path == f"/api/models/{REPO}/revision/main":
            send(handler, 200, json.dumps({"id": REPO, "sha": self.main}).encode())
        elif api:
            self._list(handler, urllib.parse.parse_qs(address.query))
        elif self.cdn:
            send(handler, 302, b"elsewhere", Location=self.cdn + handler.path)
        else:
            self._file(handler, self.served.get(name, self.files.get(name, b"")))

    def _list(self, handler: BaseHTTPRequestHandler, query: dict[str, list[str]]) -> None:
        assert query["recursive"] == ["true"]
        entries = [entry(path, content) for path, content in self.files.items()] + self.listing
        first = int(query.get("cursor", ["0"])[0])
        headers = {}
        if first + self.page < len(entries):
            # As behind a mirror: the address is the hub's own.
            following = f"recursive=true&expand=false&cursor={first + self.page}"
            headers["Link"] = f'<https://hub.invalid/api/models/{REPO}/tree/{REVISION}?{following}>; rel="next"'
        send(handler, 200, json.dumps(entries[first : first + self.page]).encode(), **headers)

    def _file(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        wanted = handler.headers.get("Range")
        first = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted and self.ranges else 0
        body = content[first:]
        if first and not body:
            send(handler, 416, b"", **{"Content-Range": f"bytes */{len(content)}"})
            return
        part = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if first else {}
        if self.cut_after is None or len(body) <= self.cut_after:
            send(handler, 206 if first else 200, body, **part)
            return
        send(handler, 206 if first else 200, body, self.cut_after, **part)
        if self.hold:
            handler.wfile.flush()
            self.hold.wait(60)
            handler.wfile.write(body[self.cut_after :])


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, most: int | None = None, **headers: str) -> None:
    handler.send_response(status)
    for key, value in headers.items():
        handler.send_header(key, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[:most])


@contextmanager
def serving(server: HubServer) -> Iterator[HubServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def handle(self) -> None:
            try:
                super().handle()
            except (BrokenPipeError, ConnectionResetError):
                # A client that was killed.
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with _listening(Handler) as address:
        server.url = address
        yield server


def start(
    url: str, destination: Path, revision: str = REVISION, token: str = "", beat_s: float = 15
) -> subprocess.Popen[str]:
    """What the operation sends, with shorter pauses and less patience, in a process that is the program itself."""
    command = fetching(url, REPO, revision, str(destination), token)
    (text,) = command.connector_arguments["_stdin"]
    for long, short in (*_SHORTER, ("HEARTBEAT_S = 15", f"HEARTBEAT_S = {beat_s}")):
        assert long in text
        text = text.replace(long, short)
    process = subprocess.Popen(
        ["sh", "-c", f"exec {command.get_raw_value()}"],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    process.stdin.write(text)
    process.stdin.close()
    process.stdin = None
    return process


def run(url: str, destination: Path, revision: str = REVISION, token: str = "") -> subprocess.CompletedProcess[str]:
    process = start(url, destination, revision, token)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def refusal(hub: HubServer, folder: Path, token: str = "") -> str:
    """One sentence, and no folder."""
    done = run(hub.url, folder, token=token)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not folder.exists()
    return done.stderr.strip()


def folder_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_in_place(folder: Path, files: dict[str, bytes] | None = None) -> None:
    """Everything that is wanted, nothing else but the manifest, and no trace in staging."""
    found = folder_files(folder)
    manifest = json.loads(found.pop(MANIFEST))
    assert found == (WANTED if files is None else files)
    assert {file["file"]: (file["size"], file["sha256"]) for file in manifest["files"]} == {
        path: (len(content), hashlib.sha256(content).hexdigest()) for path, content in found.items()
    }
    assert all(path.stat().st_mode & 0o7777 == (0o755 if path.is_dir() else 0o644) for path in folder.rglob("*"))
    assert folder.stat().st_mode & 0o7777 == 0o755
    assert [path.name for path in (folder.parent / ".staging").iterdir()] == [f"{NAME}.lock"]
