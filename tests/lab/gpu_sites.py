"""Lab hosts with simulated GPUs, and what tests of drivers do on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rackserve.lab import gpu
from rackserve.lab.gpu import plan_of
from rackserve.lab.lab import Lab
from tests.lab.deploying import Run, Site

DRIVERS, UNINSTALL = "deploys/drivers.py", "deploys/uninstall.py"
PREFLIGHT = "GPU preflight | Host is what its GPU tag and driver need"
PACKAGES = "Driver | Driver packages installed"
REPOSITORIES = "Driver | Package repositories as planned"
VERSION = "580.178.04"
NEWER = "580.190.01"
# What stand-ins for the driver's packages run when they are configured: a shell command.
POSTINST = "printf '#!/bin/sh\\n%s\\n' '{}' >/etc/lab-postinst && chmod 755 /etc/lab-postinst"
# Cards of big boards and their links appear late, and are waited for; those of a lab do not.
NO_WAIT = """mkdir -p /etc/systemd/system/gpu-ready.service.d && printf '%s\\n' '[Service]' 'ExecStart=' \
'ExecStart=/usr/libexec/rackserve/gpu-ready --wait 0' >/etc/systemd/system/gpu-ready.service.d/lab.conf
systemctl daemon-reload"""
# A service that computes nothing: what guards its start is what is looked at.
SERVICE = """mkdir -p /etc/systemd/system && printf '%s\\n' '[Unit]' 'StartLimitBurst=5' 'StartLimitIntervalSec=1h' \
'[Service]' 'ExecStart=/bin/sleep infinity' 'Restart=on-failure' 'RestartSec=1' \
>/etc/systemd/system/rackserve@.service && systemctl daemon-reload"""
PORT = 8001
# One request to the server, from the host itself: it listens there alone. Prints what came, and how it ended.
ASK = """import json, urllib.request as u
message = {message!r}
data = None if message is None else json.dumps(message).encode()
headers = {{"Content-Type": "application/json"}}
try:
    with u.urlopen(u.Request("http://127.0.0.1:{port}{path}", data, headers, method={method!r}), timeout=60) as answer:
        print(answer.status)
        for line in answer:
            print(line.decode(), end="", flush=True)
except u.HTTPError as error:
    print(error.code)
    print(error.read().decode())
"""


class GpuSite(Site):
    """An inventory of one virgin host with two simulated GPUs."""

    def __init__(self, lab: Lab, folder: Path, name: str) -> None:
        super().__init__(lab, folder)
        self.name = name
        self.data = self.hosts[name]
        self.hosts = {name: self.data}

    def run(self) -> Run:
        return self.deploy(script=DRIVERS)

    def served(self) -> Run:
        run = self.deploy()
        assert run.code == 0, run.text
        return run

    def on(self, command: str, *, check: bool = True) -> str:
        return self.lab.ssh(self.name, command, check=check).stdout

    def ask(self, path: str, message: Any = None, method: str | None = None) -> tuple[int, str]:
        """Status and text of an answer of the service at PORT."""
        program = ASK.format(path=path, port=PORT, message=message, method=method)
        status, _, text = self.lab.ssh(self.name, "python3 -", input=program).stdout.partition("\n")
        return int(status), text

    def told(self, path: str) -> Any:
        return json.loads(self.ask(path)[1])

    def refused(self, operation: str, *sentences: str) -> Run:
        run = self.run()
        assert run.code == 1
        assert run.failed(self.name) == [operation], run.text
        for sentence in sentences:
            assert sentence in run.said_of(self.name), run.text
        assert "Traceback" not in run.text
        return run

    def untouched(self) -> None:
        """Nothing of rackserve's is on the host."""
        assert self.on("ls -d /etc/rackserve /etc/apt/sources.list.d/rackserve* /var/lib/rackserve; true") == ""

    def converges(self) -> None:
        run = self.run()
        assert run.code == 0, run.text
        assert self.run().changed(self.name) == []
        assert self.on("dpkg --audit") == ""


def publish(lab: Lab, site: GpuSite, version: str) -> None:
    """Have another version of the driver in the vendor's repository, beside the one that is there."""
    plan = plan_of(lab.state().host(site.name))
    gpu.provide(lab.names.folder, lab.depot_dir, lab.depot_url, plan, version)
