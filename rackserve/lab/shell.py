"""Running the machine's own tools for the lab, with errors an operator can act on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rackserve.domain.errors import LabError

# program -> Debian package it comes from
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "nft": "nftables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "setsid": "util-linux",
}
DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def require_machine() -> None:
    """Refuse with one sentence unless this machine can hold a lab: root, and every tool present."""
    if os.geteuid() != 0:
        raise LabError("the lab makes network namespaces and mounts, which needs root: run it with sudo")
    missing = {package for program, package in TOOLS.items() if shutil.which(program) is None}
    if not DEBIAN_KEYRING.exists():
        missing.add("debian-archive-keyring")
    if missing:
        raise LabError(f"the lab needs tools that are not installed: apt-get install {' '.join(sorted(missing))}")


@contextmanager
def readable_by_all() -> Iterator[None]:
    """Files made within get ordinary modes: a host shows them as they are, whatever the operator's umask."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that can be removed; nothing on another file system."""
    # Not shutil.rmtree: in a process with pyinfra, gevent (26.9) closes each folder some time later, and a system has
    # more folders than a process may have open files.
    attempt(["rm", "-rf", "--one-file-system", "--", str(folder)])


def run(argv: Sequence[str], *, stdin: str = "") -> str:
    """Run a tool to its end and return its output; LabError with its last words if it fails."""
    done = attempt(argv, stdin=stdin)
    if done.returncode != 0:
        words = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise LabError(f"`{' '.join(argv)}` failed: {words.splitlines()[-1]}")
    return done.stdout


def attempt(argv: Sequence[str], *, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a tool whose failure is an answer, not an error."""
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
