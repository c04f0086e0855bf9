"""A host with real apt and dpkg and a repository of stand-ins, and who else may hold dpkg's locks there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rackserve.lab.repository import Package, Repository, SigningKey
from tests.operations.private_root import PrivateRoot, until
from tests.operations.scripting import Mirror, mirroring

LOG, UNIT = "/run/rackserve-packages.log", "/run/rackserve-packages.pid"
KEPT = "/var/cache/rackserve/debs"
# A maintainer script that goes on when the test says so, for a minute at most.
PATIENT = """#!/bin/sh
echo "$1" >>/run/postinst
tries=0
while [ ! -e /run/go ] && [ $tries -lt 600 ]; do tries=$((tries + 1)); sleep 0.1; done
"""
_HOLD = """
import fcntl, sys, time
held = open(sys.argv[1], "w")
fcntl.lockf(held, fcntl.LOCK_EX)
open("/run/held", "w")
time.sleep(100)
"""


class PackageBench:
    """`repository` is what the host's apt knows once it has updated its lists."""

    def __init__(self, folder: Path, mirror: Mirror) -> None:
        self.root = PrivateRoot(folder / "root")
        self.mirror = mirror
        self.key = SigningKey(folder / "key")
        self.repository = Repository(mirror.folder, self.key)
        self.repository.publish()
        self.root.path("/etc/apt/keyrings").mkdir()
        self.root.path("/etc/apt/keyrings/nv.asc").write_text(self.key.armored)
        signed = "[signed-by=/etc/apt/keyrings/nv.asc]"
        self.root.path("/etc/apt/sources.list").write_text(f"deb {signed} {mirror.url} /\n")

    def publish(self, *packages: Package, alone: bool = False) -> None:
        """Have more packages in the repository. alone: and none of those that were there."""
        if alone:
            # What is listed there would stay.
            (self.mirror.folder / "Packages").unlink()
            self.repository = Repository(self.mirror.folder, self.key)
        for package in packages:
            self.repository.add(package)
        self.repository.publish()

    def driver(
        self, *names: str, replaced: str = "", brought: str = "", downgrade: bool = False, timeout: int = 5
    ) -> subprocess.CompletedProcess[str]:
        allow = "yes" if downgrade else "no"
        return self.root.script("driver-deb.sh", timeout, allow, replaced, brought, *names)

    def refresh(self) -> None:
        done = self.root.script("refresh-deb.sh", 5)
        assert (done.returncode, done.stderr) == (0, "")

    def version(self, name: str, *, beside: int | None = None) -> str:
        """The version of a package that is all there, and else what dpkg has instead."""
        asked = "${db:Status-Abbrev}|${Version}"
        found = self.root.run("dpkg-query", "-W", "-f", asked, name, beside=beside).stdout
        return found.removeprefix("ii |")

    def kept(self) -> set[str]:
        return {path.name for path in self.root.path(KEPT).glob("*")}

    def said(self, name: str) -> list[str]:
        """Lines of a file that maintainer scripts wrote."""
        path = self.root.path(f"/run/{name}")
        return path.read_text().splitlines() if path.exists() else []

    def go(self) -> None:
        self.root.path("/run/go").touch()


@contextmanager
def working_bench(folder: Path) -> Iterator[PackageBench]:
    with mirroring(folder / "published") as mirror:
        made = PackageBench(folder, mirror)
        yield made
        made.key.close()


@contextmanager
def holding(root: PrivateRoot, path: str) -> Iterator[subprocess.Popen[str]]:
    """Somebody else's package manager, as far as its lock goes; still at it in the end unless the test ended it."""
    process = root.start(sys.executable, "-c", _HOLD, path)
    try:
        until(root.path("/run/held").exists, "the lock")
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)
