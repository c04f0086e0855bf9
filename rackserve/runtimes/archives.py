"""Where Ollama and LM Studio's server come from on a Linux host: an archive by its checksum. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from rackserve.catalog.loader import Catalog
from rackserve.domain.archives import ArchiveRuntime, PinnedArchive, RuntimeArchive
from rackserve.domain.host import Host
from rackserve.domain.llamacpp import PackageNames
from rackserve.domain.node import Node
from rackserve.domain.stack import Backend
from rackserve.planning.driver_recipes import package_manager
from rackserve.runtimes.launch import CURRENT

# The program that an archive has to hold, by its path there and in the release.
PROGRAMS: dict[ArchiveRuntime, str] = {"ollama": "bin/ollama", "lmstudio": "llmster"}
# Those that say their version without a server to ask, a home to write to, or anything else.
_TELLS_VERSION = frozenset({"ollama"})


@dataclass(frozen=True, slots=True)
class ArchiveRelease:
    """A release folder and the archive that it is made of.

    checksum: SHA-256 or SHA-512, as its length tells. size_bytes: 0 where it is not known. program: its path in both.
    tells_version: the program can be asked whether it is the planned version. packages: what has to be installed.
    """

    runtime: ArchiveRuntime
    version: str
    url: str
    checksum: str
    size_bytes: int
    program: str
    tells_version: bool
    packages: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its folder: the checksum names the content."""
        return f"{self.runtime}-{self.version}-{self.checksum[:12]}"

    @property
    def link(self) -> str:
        """What leads to the release in use."""
        return f"{CURRENT}/{self.runtime}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A version of a runtime and what it is to compute with."""

    runtime: ArchiveRuntime
    version: str
    backend: Backend

    def __str__(self) -> str:
        """For sentences."""
        return f"{self.runtime} {self.version} for {self.backend}"


def archive_release(host: Host, catalog: Catalog, node: Node, wanted: Wanted) -> ArchiveRelease | str:
    """The release, or the sentence that tells the operator why there is none."""
    own = host.archives.get(wanted.runtime)
    listed = _listed(catalog, node, wanted)
    archive: PinnedArchive | None = own or listed
    if archive is None:
        return _not_listed(catalog, node, wanted)
    drivers = _user_space(catalog, node, wanted)
    if drivers is None:
        return f"{wanted} needs the system's own drivers, whose packages the catalogue does not have for {node.system}"
    entries = [entry for entry in catalog.archives.values() if entry.runtime == wanted.runtime]
    needed = (name for entry in entries for name in _names(entry.packages, node))
    return ArchiveRelease(
        runtime=wanted.runtime,
        version=wanted.version,
        url=archive.url,
        checksum=archive.checksum,
        size_bytes=listed.size_bytes if own is None and listed is not None else 0,
        program=PROGRAMS[wanted.runtime],
        tells_version=wanted.runtime in _TELLS_VERSION,
        packages=tuple(dict.fromkeys((*needed, *drivers))),
    )


def _listed(catalog: Catalog, node: Node, wanted: Wanted) -> RuntimeArchive | None:
    for entry in catalog.archives.values():
        same = (entry.runtime, entry.version, entry.architecture) == (wanted.runtime, wanted.version, node.architecture)
        if same and wanted.backend in entry.backends:
            return entry
    return None


def _not_listed(catalog: Catalog, node: Node, wanted: Wanted) -> str:
    entries = [entry for entry in catalog.archives.values() if entry.runtime == wanted.runtime]
    known = ", ".join(f"{entry.version} on {entry.architecture} ({', '.join(entry.backends)})" for entry in entries)
    return (
        f"no archive of {wanted} on {node.architecture} is pinned in the catalogue, which has {known}: name one with "
        f"the checksum that its vendor publishes, as archives = {{'{wanted.runtime}': {{'url': ..., 'sha256': ...}}}}"
    )


def _user_space(catalog: Catalog, node: Node, wanted: Wanted) -> tuple[str, ...] | None:
    """Packages with what the backend itself needs from the system: CUDA's libraries are in the archive, Mesa is not."""
    if wanted.backend != "vulkan":
        return ()
    for entry in catalog.llamacpp.backends:
        if entry.backend == wanted.backend and node.system in entry.systems:
            return _names(entry.libraries, node)
    return None


def _names(names: PackageNames, node: Node) -> tuple[str, ...]:
    return names.rpm if package_manager(node.system) == "dnf" else names.deb
