"""Starting and stopping the lab's file server: the "mirror" hosts fetch models and archives from."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rackserve.domain.errors import LabError

PATIENCE_SECONDS = 5.0


def start(address: str, port: int, folder: Path, pid_file: Path, log: Path) -> int:
    """Serve `folder` at `address`, on `port` (0: any that is free), and return the port. A running depot stays."""
    if _process(pid_file) is not None:
        return port
    folder.mkdir(parents=True, exist_ok=True)
    pid_file.unlink(missing_ok=True)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((address, port))
        except OSError as error:
            raise LabError(f"the lab's depot cannot listen on {address}:{port}: {error}") from error
        listening.listen(64)
        port = listening.getsockname()[1]
        server = str(Path(__file__).with_name("depot_server.py"))
        descriptor = listening.fileno()
        with log.open("a") as output:
            subprocess.run(
                ["setsid", "--fork", sys.executable, "-I", server, str(descriptor), str(folder), str(pid_file)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[descriptor],
                check=True,
            )
    _wait_until(lambda: _process(pid_file) is not None, f"the lab's depot did not start: look at {log}")
    return int(port)


def stop(pid_file: Path) -> None:
    """End the depot, if it runs; the process is told from a later one with the same number by its start time."""
    process = _process(pid_file)
    if process is not None:
        os.kill(process, signal.SIGKILL)
        _wait_until(lambda: _process(pid_file) is None, f"the lab's depot, process {process}, does not end")
    pid_file.unlink(missing_ok=True)


def running(pid_file: Path) -> bool:
    """Whether the depot answers, or would."""
    return _process(pid_file) is not None


def _process(pid_file: Path) -> int | None:
    """The depot's process id if it is alive and still the one that was started."""
    try:
        record = json.loads(pid_file.read_text())
        fields = Path(f"/proc/{record['pid']}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    state, started = fields[0], fields[19]
    return int(record["pid"]) if started == record["started"] and state != "Z" else None


def _wait_until(condition: Callable[[], bool], failure: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(failure)
        time.sleep(0.01)
