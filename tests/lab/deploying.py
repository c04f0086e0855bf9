"""Run pyinfra on lab hosts as an operator does, and read what it says."""

from __future__ import annotations

import copy
import json
import os
import re
import runpy
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rackserve.lab import model
from rackserve.lab.lab import Lab

ROOT = Path(__file__).resolve().parents[2]
RUN_TIMEOUT_S = 300
_STARTING = re.compile(r"^--> Starting operation: (.+?)\s*$")
# pyinfra fills names up to the longest one's length.
_OUTCOME = re.compile(r"^\s+\[(\w+)\] +(Success|No changes|Error)")
_SEVEREST_FIRST = ("Error", "Success", "No changes")

# What a run may not touch on a host: everything but what the running system itself writes all the time.
LISTING = (
    "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp "
    "-o -path /var/log -o -path /var/lib/systemd -o -path /root/.ssh \\) -prune -o -printf '%p %T@ %m %s\\n' | sort"
)


@dataclass
class Run:
    """What one pyinfra run did: exit code, everything it said, and per operation the outcome on each host.

    Operations of one name, as there are for several services, count as one: with the outcome that stands first here.
    """

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
            run.outcomes.setdefault(current, {})
        elif current and (outcome := _OUTCOME.match(line)):
            host, became = outcome.groups()
            earlier = run.outcomes[current].get(host, became)
            run.outcomes[current][host] = min(earlier, became, key=_SEVEREST_FIRST.index)
    return run


def inventory_of(lab: Lab) -> dict[str, dict[str, Any]]:
    """What inventories/lab.py and its defaults say of the lab's hosts. pyinfra takes seconds to tell the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RACKSERVE_LAB", lab.names.lab)
        hosts = runpy.run_path(str(ROOT / "inventories" / "lab.py"))["lab"]
    read = runpy.run_path(str(ROOT / "inventories" / "group_data" / "all.py"))
    defaults = {key: value for key, value in read.items() if not key.startswith("__")}
    # Through JSON, so that no two hosts share a list that a test changes.
    return {name: json.loads(json.dumps(defaults | data)) for name, data in hosts}


class Site:
    """A lab and an inventory of it that a test can change: `site.hosts["h1"]["services"][0]["concurrency"] = 3`."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.file = folder / "site.py"
        # The checkout whose code runs, and the Python that it runs with.
        self.tree, self.python = ROOT, sys.executable
        model.provide(lab.names.folder, lab.depot_dir, lab.depot_url, tiny=True, progress=lambda _: None)
        self.hosts = inventory_of(lab)
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

    def rackserve(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.python, "-m", "rackserve", *arguments]
        return subprocess.run(command, cwd=self.tree, env=self.environment, capture_output=True, text=True, timeout=300)  # noqa: PLW1510

    @property
    def environment(self) -> dict[str, str]:
        # The environment has this checkout installed: another one stands before it.
        asked = {"RACKSERVE_LAB": self.lab.names.lab, "PYTHONPATH": str(self.tree), "PYTHONUNBUFFERED": "1"}
        return os.environ | asked

    def _pyinfra(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.python, "-m", "pyinfra", "--group-data", "inventories/group_data", *arguments]
        return subprocess.run(  # noqa: PLW1510 (the tests look at the exit code)
            command,
            cwd=self.tree,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S * 4,
        )


def main_pid(lab: Lab, host: str, service: str = "chat") -> tuple[str, str]:
    """Process id and start time of a service: equal before and after means that nothing restarted it."""
    shown = lab.ssh(host, f"systemctl show -p MainPID -p ExecMainStartTimestampMonotonic --value rackserve@{service}")
    first, second = shown.stdout.split()
    return first, second


def serves(lab: Lab, host: str, service: str = "chat") -> bool:
    """Whether the service answers a real completion right now."""
    return lab.ssh(host, f"timeout 20 /usr/libexec/rackserve/wait-ready {service}", check=False).returncode == 0


# What the running system writes by itself, and package managers wherever they work.
_PASSING = (
    *("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/log", "/var/lib/systemd", "/root/.ssh"),
    *("/var/lib/apt", "/var/lib/dpkg", "/var/cache/apt", "/var/cache/ldconfig", "/var/cache/debconf"),
)


def everything(lab: Lab, host: str) -> dict[str, list[str]]:
    """All of a host that is there to stay: files with owner, mode and content, packages, accounts, units."""
    pruned = " -o ".join(f"-path {path}" for path in _PASSING)
    questions = {
        "files": f"find / -xdev \\( {pruned} \\) -prune -o -printf '%p %y %m %U:%G %l\\n' | sort",
        "contents": "find /etc /srv /opt /usr/local /home /root -xdev -type f ! -path '/root/.ssh/*' "
        # Kept by useradd and userdel of what was there before their last work.
        "! -path '/etc/*-' -exec sha256sum {} + | sort -k 2",
        "packages": "dpkg-query -W -f '${db:Status-Abbrev}${Package} ${Version}\\n'",
        "accounts": "getent passwd; getent group",
        # Transient ones are logins, our own among them.
        "units": "systemctl list-unit-files --no-legend --no-pager | grep -v transient",
    }
    return {kind: lab.ssh(host, command).stdout.splitlines() for kind, command in questions.items()}


def differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, list[str]]:
    """What came (+) and went (-) between two looks at everything; only the kinds where something did."""
    found = {
        kind: [f"-{line}" for line in sorted(set(lines) - set(after[kind]))]
        + [f"+{line}" for line in sorted(set(after[kind]) - set(lines))]
        for kind, lines in before.items()
    }
    return {kind: lines for kind, lines in found.items() if lines}
