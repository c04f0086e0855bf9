"""Releases of llama.cpp, and those that are a vendor's archive."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import defaultdict
from collections.abc import Generator, Iterator
from importlib import resources
from pathlib import Path

from pyinfra import host
from pyinfra.api import FileDownloadCommand, FileUploadCommand, StringCommand, operation
from pyinfra.api.command import PyinfraCommand

from rackserve.cache import builds_folder
from rackserve.facts.packages import Dpkg, RpmAbsent
from rackserve.operations import commands
from rackserve.operations.current import WORK, current
from rackserve.operations.packages import packages_script
from rackserve.planning.driver_recipes import PackageManager
from rackserve.runtimes.archives import ArchiveRelease
from rackserve.runtimes.launch import RELEASES
from rackserve.runtimes.llamacpp_origins import CURRENT, FromArchive, FromSource, Origin

_PROGRAM = "bin/llama-server"
# One build per release however many hosts want it: the first host builds, the others wait here. pyinfra runs hosts in
# greenlets and patches threading, so waiting blocks nobody else.
_building: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


@operation()
def llama_server(origin: Origin, lock_timeout: int, manager: PackageManager) -> Generator[PyinfraCommand, None, None]:
    """Have llama-server's release of this origin complete and current."""
    making = _make(origin, f"{RELEASES}/{origin.release}", lock_timeout, manager)
    yield from current(origin.release, CURRENT, _PROGRAM, making)


@operation()
def archive_release(release: ArchiveRelease) -> Generator[PyinfraCommand, None, None]:
    """Have the release of this archive complete and current."""
    yield from current(release.name, release.link, release.program, _unpacked(release))


def _unpacked(release: ArchiveRelease) -> Iterator[PyinfraCommand]:
    archive = f"{WORK}/archives/{release.name}.tar"
    version = release.version if release.tells_version else ""
    yield commands.script("fetch.sh", release.url, release.checksum, str(release.size_bytes), archive)
    yield commands.script("archive.sh", f"{RELEASES}/{release.name}", archive, release.program, version)
    yield StringCommand("rm", "-f", archive)


def _make(
    origin: Origin, folder: str, lock_timeout: int, manager: PackageManager
) -> Generator[PyinfraCommand, None, None]:
    if isinstance(origin, FromSource):
        yield from _from_source(origin, folder, lock_timeout, manager)
    elif isinstance(origin, FromArchive):
        archive = f"{WORK}/archives/{origin.release}.tar.gz"
        yield commands.script("fetch.sh", origin.url, origin.sha256, "0", archive)
        yield commands.script("release.sh", folder, archive, origin.backend)
        yield StringCommand("rm", "-f", archive)
    else:
        yield commands.script("release.sh", folder, origin.program, origin.backend)


def _from_source(
    origin: FromSource, folder: str, lock_timeout: int, manager: PackageManager
) -> Generator[PyinfraCommand, None, None]:
    kept = builds_folder() / f"{origin.release}.tar.gz"
    archive = f"{WORK}/archives/{kept.name}"
    with _building[origin.release]:
        if not kept.is_file():
            yield from _build(origin, kept, lock_timeout, manager)
    # Under sudo the upload passes through /tmp; pyinfra's own name there could be guessed and taken first.
    temporary = f"/tmp/rackserve-{secrets.token_hex(16)}"  # noqa: S108 (not guessable, and checked below)
    yield StringCommand("mkdir", "-p", commands.parent(archive))
    yield FileUploadCommand(str(kept), archive, remote_temp_filename=temporary)
    yield commands.check_sha256(archive, hashlib.sha256(kept.read_bytes()).hexdigest())
    yield commands.script("release.sh", folder, archive, origin.backend)
    yield StringCommand("rm", "-f", archive)


def _build(
    origin: FromSource, kept: Path, lock_timeout: int, manager: PackageManager
) -> Generator[PyinfraCommand, None, None]:
    """Build on this host and keep the result on the operator's machine."""
    work = f"{WORK}/build/{origin.release}"
    # Not where archives are shipped to: an upload that was cut off must never pass for what was built.
    archive = f"{work}/{kept.name}"
    if manager == "dnf":
        absent = host.get_fact(RpmAbsent, packages=list(origin.build_packages))
        missing = sorted(absent)
    else:
        missing = sorted(set(origin.build_packages) - host.get_fact(Dpkg).installed)
    if missing:
        yield packages_script(missing, lock_timeout, manager)
    backend = (resources.files("rackserve.catalog") / "build-backend.txt").read_text(encoding="utf-8")
    source = f"{origin.source.package}=={origin.source.version} --hash=sha256:{origin.source.sha256}\n"
    yield commands.write_file(f"{work}/backend.txt", backend, "644")
    yield commands.write_file(f"{work}/source.txt", source, "644")
    made = origin.recipe
    words = (made.setup, *made.environment, *made.options)
    yield commands.script(
        "build.sh", work, origin.source.folder, archive, str(origin.jobs or 0), origin.backend, *words
    )
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_name(f"{kept.name}.partial")
    yield FileDownloadCommand(archive, str(partial))
    partial.replace(kept)
