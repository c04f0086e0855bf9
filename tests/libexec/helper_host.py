"""A host's files below a folder, with the helper programs on it and stand-ins for what they call."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.libexec.model_server import ModelServer

HELPERS = Path(__file__).resolve().parents[2] / "templates" / "libexec"
KEY = "sk-this-is-the-secret"
UNIT = "rackserve@chat.service"
SYSTEMCTL = """#!/bin/sh
echo "$*" >>"{folder}/systemctl.log"
case $1 in
  show) cat "{folder}/state" ;;
  kill) [ ! -e "{folder}/kill-fails" ] || {{ echo "Access denied" >&2; exit 4; }} ;;
esac
"""


class HelperHost:
    """`root` is what the programs take for `/`, `bin` comes first on their PATH, `libexec` is where they lie."""

    def __init__(self, folder: Path, server: ModelServer) -> None:
        self.root, self.bin, self.libexec = folder / "root", folder / "bin", folder / "libexec"
        self.bin.mkdir(parents=True)
        shutil.copytree(HELPERS, self.libexec, ignore=shutil.ignore_patterns("__pycache__"))
        self.key = folder / "api-key"
        self.key.write_text(f"{KEY}\n")
        self.url = server.url
        self.service()
        self.state()
        self.standin("systemctl", SYSTEMCTL.format(folder=folder))

    def service(self, **changes: Any) -> None:
        """Write the file of the service `chat`."""
        facts = {
            "name": "chat",
            "unit": UNIT,
            "url": self.url,
            "health": "/health",
            "key_file": str(self.key),
            "start_s": 10,
            "drain_s": 30,
            "metrics": "/metrics",
            "metrics_key": False,
            "in_flight": ["vllm:num_requests_running", "vllm:num_requests_waiting"],
            "progress": ["vllm:generation_tokens_total"],
            "vendor": "none",
            "gpus": [],
            "gpu_mib": 0,
        }
        self.write("etc/rackserve/services/chat.json", json.dumps(facts | changes))

    def state(self, active: str = "active", sub: str = "running", pid: int = 100) -> None:
        """What systemd says of the unit."""
        facts = {
            "ActiveState": active,
            "SubState": sub,
            "MainPID": pid,
            "ControlGroup": f"/system.slice/system-rackserve.slice/{UNIT}",
        }
        text = "".join(f"{key}={value}\n" for key, value in facts.items())
        self.bin.with_name("state").write_text(text)

    @property
    def systemctl_calls(self) -> list[str]:
        log = self.bin.with_name("systemctl.log")
        return log.read_text().splitlines() if log.exists() else []

    @property
    def kills(self) -> list[str]:
        return [call for call in self.systemctl_calls if call.startswith("kill")]

    def gpus(self, *cards: tuple[str, str], vendor: str = "nvidia") -> None:
        """Cards as gpu-ready has written them down: address and UUID of each."""
        nodes = {"nvidia": "/dev/nvidia{}", "amd": "/dev/dri/renderD{}", "intel": "/dev/dri/renderD{}"}
        found = [
            {"address": address, "uuid": uuid, "node": nodes[vendor].format(number), "vendor": vendor}
            for number, (address, uuid) in enumerate(cards)
        ]
        self.write("run/rackserve/gpus.json", json.dumps(found))

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def standin(self, name: str, script: str) -> None:
        """A program that is found before the real one."""
        program = self.bin / name
        program.write_text(script)
        program.chmod(0o755)

    def quick(self, program: str, **constants: float) -> None:
        """Shorten the times that a program has as constants."""
        file = self.libexec / program
        lines = file.read_text().splitlines()
        for name, value in constants.items():
            (place,) = [number for number, line in enumerate(lines) if line.startswith(f"{name} = ")]
            lines[place] = f"{name} = {value}"
        file.write_text("\n".join(lines) + "\n")

    def run(self, program: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program, for the service `chat` unless told otherwise."""
        words = words or ("chat", "--root", str(self.root))
        variables = {"PATH": f"{self.bin}:{os.environ['PATH']}"} | environment
        command = [str(self.libexec / program), *words]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=60)
        assert "Traceback" not in done.stderr
        assert KEY not in done.stderr
        return done


def assert_refused(done: subprocess.CompletedProcess[str], reason: str, code: int = 1) -> None:
    assert (done.returncode, reason in done.stderr) == (code, True), done.stderr
