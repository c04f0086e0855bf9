"""Run pyinfra on lab hosts as an operator does, and read what it says."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rackserve.lab import model
from rackserve.lab.lab import Lab

ROOT = Path(__file__).resolve().parents[2]
RUN_TIMEOUT_S = 300
_STARTING = re.compile(r"^--> Starting operation: (.+?)\s*$")
_OUTCOME = re.compile(r"^\s+\[(\w+)\] (Success|No changes|Error)")


@dataclass
class Run:
    """What one pyinfra run did: exit code, everything it said, and per operation the outcome on each host."""

    code: int
    text: str
    outcomes: dict[str, dict[str, str]] = field(default_factory=dict)

    def changed(self, host: str) -> list[str]:
        return [name for name, hosts in self.outcomes.items() if hosts.get(host) == "Success"]

    def failed(self, host: str) -> list[str]:
        return [name for name, hosts in self.outcomes.items() if hosts.get(host) == "Error"]

    def said_of(self, host: str) -> str:
        return "\n".join(line for line in self.text.splitlines() if f"[{host}]" in line)


def parse_run(code: int, text: str) -> Run:
    run, current = Run(code, text), ""
    for line in text.splitlines():
        if starting := _STARTING.match(line):
            current = starting[1]
            run.outcomes[current] = {}
        elif current and (outcome := _OUTCOME.match(line)):
            run.outcomes[current][outcome[1]] = outcome[2]
    return run


class Site:
    """A lab and an inventory of it that a test can change: `site.hosts["h1"]["services"][0]["concurrency"] = 3`."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.file = folder / "site.py"
        model.provide(lab.names.folder, lab.depot_dir, lab.depot_url, tiny=True, progress=lambda _: None)
        listing = self._pyinfra("inventories/lab.py", "debug-inventory", "--json", group_data=False)
        self.hosts: dict[str, dict[str, Any]] = {entry["name"]: entry["data"] for entry in json.loads(listing.stdout)}
        self._pristine = copy.deepcopy(self.hosts)

    def reset(self) -> None:
        self.hosts = copy.deepcopy(self._pristine)

    def write(self) -> Path:
        self.file.write_text(f"site = {list(self.hosts.items())!r}\n")
        return self.file

    def deploy(self, *options: str, script: str = "deploys/serve.py") -> Run:
        done = self._pyinfra("-y", *options, str(self.write()), script)
        return parse_run(done.returncode, done.stderr)

    def predicted(self, host: str, script: str = "deploys/serve.py") -> list[str]:
        """Names of the operations that a dry run says would change something on the host."""
        done = self._pyinfra("--dry", "--json", str(self.write()), script)
        assert done.returncode == 0, done.stderr
        return [entry["name"] for entry in json.loads(done.stdout)["plan"] if host in entry["hosts_with_change"]]

    def deploy_until(
        self, operation: int, act: Callable[[subprocess.Popen[str]], None], script: str = "deploys/serve.py"
    ) -> tuple[str, Run]:
        """Deploy and call `act` when the operation of this number (from 0) has started; its name and the run."""
        command = [sys.executable, "-m", "pyinfra", "-y", str(self.write()), script]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        lines, started, name = [], -1, ""
        with subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stderr=subprocess.PIPE, text=True, **quiet
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                lines.append(line)
                if starting := _STARTING.match(line):
                    started += 1
                    if started == operation:
                        name = starting[1]
                        act(process)
        return name, parse_run(process.wait(RUN_TIMEOUT_S), "".join(lines))

    def rackserve(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rackserve", *arguments]
        return subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=300)  # noqa: PLW1510

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "RACKSERVE_LAB": self.lab.names.lab, "PYTHONUNBUFFERED": "1"}

    def _pyinfra(self, *arguments: str, group_data: bool = True) -> subprocess.CompletedProcess[str]:
        extra = ["--group-data", "inventories/group_data"] if group_data else []
        command = [sys.executable, "-m", "pyinfra", *extra, *arguments]
        return subprocess.run(  # noqa: PLW1510 (the tests look at the exit code)
            command,
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S * 4,
        )


def kill_after(seconds: float) -> Callable[[subprocess.Popen[str]], None]:
    """An `act` that lets the operation get going and then kills the run with SIGKILL."""

    def act(process: subprocess.Popen[str]) -> None:
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)

    return act


def main_pid(lab: Lab, host: str, service: str = "chat") -> tuple[str, str]:
    """Process id and start time of a service: equal before and after means that nothing restarted it."""
    shown = lab.ssh(host, f"systemctl show -p MainPID -p ExecMainStartTimestampMonotonic --value rackserve@{service}")
    first, second = shown.stdout.split()
    return first, second


def serves(lab: Lab, host: str, service: str = "chat") -> bool:
    """Whether the service answers a real completion right now."""
    return lab.ssh(host, f"timeout 20 /usr/libexec/rackserve/wait-ready {service}", check=False).returncode == 0
