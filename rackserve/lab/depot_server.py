"""A file server for the lab's hosts, one process; started by path with `python -I`, so standard library only.

It answers Range requests, which Python's own handler does not, so that a host can resume a broken download.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import sys
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

_RANGE = re.compile(r"^bytes=(\d*)-(\d*)$")


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """First and last byte of one requested range; None if none or several are asked for, ValueError if outside."""
    match = _RANGE.match(header.strip())
    if not match or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    begin = int(first) if first else max(0, size - int(last))
    end = min(int(last), size - 1) if first and last else size - 1
    if begin > end:
        raise ValueError(header)
    return begin, end


class DepotHandler(SimpleHTTPRequestHandler):
    """Files of one folder, whole or in part."""

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        """Answer a Range request for a file with that part; leave all else to the standard handler."""
        path = Path(self.translate_path(self.path))
        if "Range" not in self.headers or not path.is_file():
            return super().send_head()
        size = path.stat().st_size
        try:
            wanted = byte_range(self.headers["Range"], size)
        except ValueError:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        return super().send_head() if wanted is None else self._send_part(path, wanted, size)

    def _send_part(self, path: Path, wanted: tuple[int, int], size: int) -> BinaryIO | None:
        begin, end = wanted
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Range", f"bytes {begin}-{end}/{size}")
        self.send_header("Content-Length", str(end - begin + 1))
        self.send_header("Last-Modified", self.date_time_string(int(path.stat().st_mtime)))
        self.end_headers()
        if self.command == "HEAD":
            return None
        with path.open("rb") as file:
            file.seek(begin)
            left = end - begin + 1
            while left and (block := file.read(min(left, 1 << 16))):
                self.wfile.write(block)
                left -= len(block)
        return None

    def end_headers(self) -> None:
        """Say that ranges are understood, then end the head."""
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()


class DepotServer(ThreadingHTTPServer):
    """Serves on a socket that is listening already; threads end with the process."""

    daemon_threads = True

    def __init__(self, listening: socket.socket, folder: str) -> None:
        """Take over `listening`, which the lab bound to the bridge's address."""
        super().__init__(listening.getsockname(), partial(DepotHandler, directory=folder), bind_and_activate=False)
        self.socket.close()
        self.socket = listening


def main(descriptor: str, folder: str, pid_file: str) -> None:
    """Serve `folder` on the inherited socket; leave pid and start time where `down` looks for them."""
    started = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]
    fresh = Path(f"{pid_file}.fresh")
    fresh.write_text(json.dumps({"pid": os.getpid(), "started": started}))
    fresh.replace(pid_file)
    DepotServer(socket.socket(fileno=int(descriptor)), folder).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
