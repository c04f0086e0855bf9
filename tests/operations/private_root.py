"""This machine with another /etc/apt, in a mount namespace that is gone afterwards: real apt, dpkg and gpg."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rackserve.operations.commands import script_text
from tests import needs
from tests.operations.scripting import ENVIRONMENT

needs_private_root = needs.root("apt-get", "gpg", "curl", "unshare", "dpkg-deb")
# What tests see and change as plain folders; all else of the machine is underneath, and written to a layer.
OWN = ("etc/apt", "etc/yum.repos.d", "var/lib/apt", "var/cache/apt", "var/lib/rackserve", "var/cache/rackserve", "run")
_SETUP = """
set -e
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/merged"
for folder in $2; do mkdir -p "$1/merged/$folder"; mount --bind "$1/own/$folder" "$1/merged/$folder"; done
mount -t proc proc "$1/merged/proc"
mount --rbind /dev "$1/merged/dev"
root=$1; shift 2
exec chroot "$root/merged" "$@"
"""
# systemd's part, played by the shell: a unit is a process group of its own, and its pid is kept where it can be asked.
_SHIMS = {
    "systemd-run": """#!/bin/sh
while [ "${1#--}" != "$1" ]; do case $1 in --unit=*) unit=${1#--unit=} ;; esac; shift; done
! systemctl is-active "$unit" || { echo "Unit $unit.service was already loaded" >&2; exit 1; }
setsid "$@" 9>&- & echo $! >/run/$unit.pid
wait $!; code=$?; rm -f /run/$unit.pid; exit $code
""",
    "systemctl": """#!/bin/sh
[ "$1" = is-active ] || exit 0
for word; do unit=${word%.service}; done
kill -0 "$(cat /run/$unit.pid 2>/dev/null)" 2>/dev/null
""",
}


@dataclass
class PrivateRoot:
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("upper", "work", "merged", *(f"own/{folder}" for folder in OWN)):
            (self.folder / name).mkdir(parents=True)
        for name in ("etc/apt/sources.list.d", "etc/apt/apt.conf.d", "etc/apt/preferences.d", "var/lib/apt/lists"):
            self.path(f"/{name}").mkdir(exist_ok=True)
        for name, text in _SHIMS.items():
            self.program(name, text)

    def path(self, name: str) -> Path:
        """Where a path on this root lies: in a folder of its own, or in the layer."""
        relative = name.lstrip("/")
        own = any(relative == folder or relative.startswith(f"{folder}/") for folder in OWN)
        return self.folder / ("own" if own else "upper") / relative

    def program(self, name: str, text: str) -> None:
        """Put a program before all others."""
        path = self.path(f"/usr/local/sbin/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def start(self, *words: object, stdin: str = "", beside: int | None = None) -> subprocess.Popen[str]:
        """Start a program. beside: pid of one that runs here: both see the same locks, and /var changes as one."""
        entering = ["unshare", "--mount", "--propagation", "private"]
        entering += ["sh", "-c", _SETUP, "sh", str(self.folder), " ".join(OWN)]
        if beside is not None:
            entering = ["nsenter", f"--target={beside}", "--mount", "--root", "--wd"]
        process = subprocess.Popen(
            [*entering, *map(str, words)],
            # A group of its own, which can be ended as a whole.
            start_new_session=True,
            env={**ENVIRONMENT, **self.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin
        process.stdin.write(stdin)
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, *words: object, stdin: str = "", beside: int | None = None) -> subprocess.CompletedProcess[str]:
        return finished(self.start(*words, stdin=stdin, beside=beside))

    def start_script(self, name: str, *arguments: object, beside: int | None = None) -> subprocess.Popen[str]:
        """One of our scripts, as a host gets it."""
        return self.start("sh", "-s", "--", *arguments, stdin=script_text(name), beside=beside)

    def script(self, name: str, *arguments: object, beside: int | None = None) -> subprocess.CompletedProcess[str]:
        return finished(self.start_script(name, *arguments, beside=beside))

    def shell(self, text: str) -> str:
        done = self.run("sh", "-c", text)
        assert done.returncode == 0, done.stderr
        return done.stdout


def finished(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.02)
