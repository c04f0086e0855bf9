"""A container registry on the lab's own address, and an image of this machine's Python to serve from it.

What registries answer never changes for one digest, so it is three kinds of GET.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import re
import subprocess
import sys
import sysconfig
import tarfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Of the standard library, what a small server can do without.
_LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "distutils", "pydoc_data", "turtledemo"}
_LEFT_OUT |= {"__pycache__", "site-packages", "dist-packages", "unittest", "sqlite3", "asyncio", "multiprocessing"}
PYTHON = Path(sys.executable).resolve()


def python_files() -> Iterator[Path]:
    """The interpreter that runs this, its standard library, and the shared libraries of both."""
    folder = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}))
    files = [PYTHON, *(path for path in folder.rglob("*") if path.is_file() and _wanted(path.relative_to(folder)))]
    yield from files
    for file in files:
        if file == PYTHON or file.suffix == ".so":
            told = subprocess.run(["ldd", file], capture_output=True, text=True, check=False).stdout
            yield from (Path(found) for found in re.findall(r"(/\S+) \(0x", told))


def _wanted(path: Path) -> bool:
    return not _LEFT_OUT.intersection(path.parts) and not path.parts[0].startswith("config-") and path.suffix != ".a"


@dataclass(frozen=True)
class Layer:
    """Files of an image: packed, and the digest of what they are unpacked."""

    packed: bytes
    diff_id: str


def layer(files: Mapping[str, bytes]) -> Layer:
    """Programs and other files by path, with the folders that containers are mounted over."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for folder in ("tmp", "etc", "proc", "sys", "dev", "run", "models"):
            archive.addfile(_entry(folder, tarfile.DIRTYPE))
        for path, content in files.items():
            archive.addfile(_entry(path, tarfile.REGTYPE, len(content)), io.BytesIO(content))
    return Layer(gzip.compress(plain.getvalue(), compresslevel=1, mtime=0), _digest(plain.getvalue()))


def python_layer() -> Layer:
    """An interpreter that runs programs."""
    return layer({str(path): path.resolve().read_bytes() for path in dict.fromkeys(python_files())})


def program(text: str) -> bytes:
    """A program of that interpreter."""
    return f"#!{PYTHON} -IB\n{text}".encode()


class Image:
    """An image of these layers, as a registry has it."""

    def __init__(self, layers: Sequence[Layer], entrypoint: list[str]) -> None:
        settings = {"Env": ["PATH=/usr/local/bin:/usr/bin"], "Entrypoint": entrypoint, "User": "root"}
        rootfs = {"type": "layers", "diff_ids": [entry.diff_id for entry in layers]}
        machine = _ARCHITECTURES[platform.machine()]
        config = json.dumps({"architecture": machine, "os": "linux", "config": settings, "rootfs": rootfs}).encode()
        self.blobs = {_digest(blob): blob for blob in (config, *(entry.packed for entry in layers))}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _part("application/vnd.oci.image.config.v1+json", config),
            "layers": [_part("application/vnd.oci.image.layer.v1.tar+gzip", entry.packed) for entry in layers],
        }
        self.manifest = json.dumps(manifest).encode()
        self.digest = _digest(self.manifest)


def _entry(path: str, kind: bytes, size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.type, entry.mode, entry.size = kind, 0o755, size
    return entry


def _part(media: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@contextmanager
def registry(address: str, images: Iterable[Image]) -> Iterator[str]:
    """Serve images under any name at `address`; yields the registry's name, with its port."""
    blobs = {digest: blob for image in images for digest, blob in image.blobs.items()}
    manifests = {image.digest: image.manifest for image in images}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            digest = self.path.rpartition("/")[2]
            if self.path == "/v2/":
                self._answer(200, "application/json", b"{}")
            elif digest in manifests:
                self._answer(200, MANIFEST, manifests[digest])
            elif digest in blobs:
                self._answer(200, "application/octet-stream", blobs[digest])
            else:
                self._answer(404, "application/json", b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')

        do_HEAD = do_GET  # noqa: N815  the name is the base class's

        def _answer(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((address, 0), Handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"{address}:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()
