"""Where llama.cpp's llama-server comes from, for each backend: a package, a release archive, or a build. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from packaging.version import Version

from rackserve.catalog.loader import Catalog
from rackserve.domain.host import LlamaCppSettings
from rackserve.domain.llamacpp import (
    BackendPackages,
    DistributionPackage,
    PackageNames,
    ReleaseArchive,
    SourceArchive,
)
from rackserve.domain.node import Node
from rackserve.domain.stack import Backend
from rackserve.planning.driver_recipes import package_manager
from rackserve.runtimes.llamacpp_build import CPU_RECIPE, Recipe, recipe

CURRENT = "/opt/rackserve/current/llama.cpp"
# Built with machine code for the GPUs of a host; drivers compile the others' kernels.
_PER_GPU = frozenset({"cuda", "rocm"})


@dataclass(frozen=True, slots=True)
class Compute:
    """What the program computes with.

    toolkit: release of CUDA or ROCm that is planned ("13.0"). targets: of the host's GPUs ("8.6", "gfx1100").
    """

    backend: Backend = "cpu"
    toolkit: str | None = None
    targets: tuple[str, ...] = ()


CPU = Compute()


@dataclass(frozen=True, slots=True)
class FromPackage:
    """The distribution's own package, for the CPU; the release folder links to its program."""

    package: str
    program: str
    backend: Backend = field(default="cpu", init=False)
    repositories: tuple[str, ...] = field(default=(), init=False)

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
    """A release archive with its SHA-256; `libraries` are the packages that its program links.

    repositories: names of those that have these packages, beside the system's own.
    """

    url: str
    sha256: str
    libraries: tuple[str, ...]
    backend: Backend = "cpu"
    repositories: tuple[str, ...] = ()

    @property
    def release(self) -> str:
        """Folder name below RELEASES: the archive's checksum names its content, and what it was checked to hold."""
        backend = "" if self.backend == "cpu" else f"{self.backend}-"
        return f"llama.cpp-{backend}{self.sha256[:12]}"

    @property
    def packages(self) -> tuple[str, ...]:
        """What has to be installed for it."""
        return ("ca-certificates", "curl", *self.libraries)


@dataclass(frozen=True, slots=True)
class FromSource:
    """A build from the source that a Python package vendors: once per system, CPU, backend and GPU, then shipped.

    codename: of the system's release. repositories: names of those that have the packages, beside the system's own.
    """

    source: SourceArchive
    codename: str
    architecture: str
    build_packages: tuple[str, ...]
    libraries: tuple[str, ...]
    jobs: int | None
    backend: Backend = "cpu"
    recipe: Recipe = CPU_RECIPE
    repositories: tuple[str, ...] = ()

    @property
    def release(self) -> str:
        """Folder name below RELEASES. The C library of the building system is part of what was built."""
        name = f"llama.cpp-{self.source.package}-{self.source.version}-{self.codename}-{self.architecture}"
        return f"{name}-{self.recipe.name}" if self.recipe.name else name

    @property
    def packages(self) -> tuple[str, ...]:
        """What has to be installed on each host that runs it; the compiler is only needed where it is built."""
        return self.libraries


Origin = FromPackage | FromArchive | FromSource


@dataclass(frozen=True, slots=True)
class _Wish:
    """A host that is to compute with something. `here` is for sentences."""

    settings: LlamaCppSettings
    catalog: Catalog
    node: Node
    compute: Compute

    @property
    def here(self) -> str:
        node = self.node
        return f"{node.distribution} {node.codename or node.version} on {node.architecture}"

    @property
    def what(self) -> str:
        """As in "llama.cpp for cuda 13.0"."""
        words = (self.compute.backend, self.compute.toolkit)
        return "llama.cpp" if self.compute.backend == "cpu" else f"llama.cpp for {' '.join(w for w in words if w)}"


def origin(settings: LlamaCppSettings, catalog: Catalog, node: Node, compute: Compute = CPU) -> Origin | str:
    """Where llama-server comes from on such a host, or the sentence that tells the operator why nowhere."""
    # In whatever order a host's cards are listed, its build is the same one.
    wish = _Wish(settings, catalog, node, replace(compute, targets=tuple(sorted(set(compute.targets)))))
    package = _package(wish)
    if settings.install == "package" or (settings.install == "auto" and package is not None):
        if package is None:
            return _no_package(wish)
        return FromPackage(package.package, package.program)
    archive = _archive(wish)
    # For GPUs a build is what the stack plans where there is no archive. For the CPU it has to be asked for.
    if settings.install == "build" or (settings.install == "auto" and archive is None and compute.backend != "cpu"):
        return _from_source(wish)
    return _no_archive(wish) if archive is None else _from_archive(wish, archive)


def _package(wish: _Wish) -> DistributionPackage | None:
    here = (wish.node.distribution, wish.node.codename)
    known = wish.catalog.llamacpp.packages if wish.compute.backend == "cpu" else ()
    return next((entry for entry in known if (entry.distribution, entry.codename) == here), None)


def _no_package(wish: _Wish) -> str:
    if wish.compute.backend != "cpu":
        return f"llamacpp_install = 'package': packages of distributions are for the CPU, not {wish.what}; use 'auto'"
    return f"llamacpp_install = 'package': {wish.here} has no llama.cpp package known to the catalogue; use 'build'"


def _archive(wish: _Wish) -> ReleaseArchive | None:
    settings, node, backend = wish.settings, wish.node, wish.compute.backend
    if settings.archive_url is None or settings.archive_sha256 is None:
        wanted = (node.architecture, backend)
        archives = wish.catalog.llamacpp.archives
        return next((entry for entry in archives if (entry.architecture, entry.backend) == wanted), None)
    return ReleaseArchive(
        architecture=node.architecture,
        backend=backend,
        url=settings.archive_url,
        sha256=settings.archive_sha256,
        glibc="0",
        source="inventory",
        date="",
    )


def _no_archive(wish: _Wish) -> str:
    backend = "" if wish.compute.backend == "cpu" else f"{wish.compute.backend} "
    return (
        f"no llama.cpp {backend}release archive for {wish.here} is pinned in the catalogue: set llamacpp_archive_url "
        "and llamacpp_archive_sha256, or llamacpp_install = 'build'"
    )


def _from_archive(wish: _Wish, archive: ReleaseArchive) -> FromArchive | str:
    settings, node = wish.settings, wish.node
    if Version(node.glibc) < Version(archive.glibc):
        return (
            f"the llama.cpp archive needs glibc {archive.glibc}, {wish.here} has {node.glibc}: "
            "llamacpp_install = 'build'"
        )
    url = archive.url
    if settings.install == "mirror" and settings.mirror is not None:
        url = f"{settings.mirror.rstrip('/')}/{archive.url.rsplit('/', 1)[1]}"
    needs, libraries = _backend(wish), _names(wish, wish.catalog.llamacpp.libraries)
    if needs is None or _missing_repository(wish, needs):
        # The archive has to bring the rest itself; whether it does is checked on the host.
        return FromArchive(url, archive.sha256, libraries, wish.compute.backend)
    libraries += _names(wish, needs.libraries)
    return FromArchive(url, archive.sha256, libraries, wish.compute.backend, needs.repositories)


def _from_source(wish: _Wish) -> FromSource | str:
    facts, node, compute = wish.catalog.llamacpp, wish.node, wish.compute
    needs, made = _backend(wish), CPU_RECIPE
    packages, libraries = _names(wish, facts.build_packages), _names(wish, facts.libraries)
    if compute.backend != "cpu":
        if needs is None or needs.build_packages is None:
            return _not_built(wish)
        if compute.backend in _PER_GPU and not compute.targets:
            return f"{wish.what} is built for one kind of GPU: the catalogue has to state the target of this host's"
        missing = _missing_repository(wish, needs)
        if missing:
            return f"{wish.what} is built with packages of {missing}, which the catalogue does not have for {wish.here}"
        made = recipe(needs, compute.targets)
        packages += _names(wish, needs.build_packages)
        libraries += _names(wish, needs.libraries)
    return FromSource(
        source=facts.build,
        codename=node.codename or node.system,
        architecture=node.architecture,
        build_packages=packages,
        libraries=libraries,
        jobs=wish.settings.build_jobs,
        backend=compute.backend,
        recipe=made,
        repositories=needs.repositories if needs else (),
    )


def _not_built(wish: _Wish) -> str:
    entries = [entry for entry in _backends(wish) if entry.build_packages is not None]
    known = ", ".join(dict.fromkeys(system for entry in entries for system in entry.systems))
    where = f"the catalogue has build packages for {known}" if known else "the catalogue has no build packages for it"
    return (
        f"{wish.what} is not built on {wish.here}: {where}; set llamacpp_archive_url and llamacpp_archive_sha256 to an "
        "archive that has it"
    )


def _backends(wish: _Wish) -> Iterator[BackendPackages]:
    """Those of the wanted backend. A toolkit's programs run with what any of its major version needs."""
    wanted = wish.compute.toolkit
    for entry in wish.catalog.llamacpp.backends:
        suits = wanted is None or entry.toolkit is None or Version(wanted).major == Version(entry.toolkit).major
        if entry.backend == wish.compute.backend and suits:
            yield entry


def _backend(wish: _Wish) -> BackendPackages | None:
    return next((entry for entry in _backends(wish) if wish.node.system in entry.systems), None)


def _missing_repository(wish: _Wish, needs: BackendPackages) -> str:
    """The first of its repositories that the catalogue has not for this system and CPU; empty for none."""
    node = wish.node
    known = {
        entry.name
        for entry in wish.catalog.drivers.repositories.values()
        if node.system in entry.systems and node.architecture in entry.architectures
    }
    return next((name for name in needs.repositories if name not in known), "")


def _names(wish: _Wish, names: PackageNames) -> tuple[str, ...]:
    patterns = names.rpm if package_manager(wish.node.system) == "dnf" else names.deb
    found = (
        pattern.replace("{target}", target)
        for pattern in patterns
        for target in (wish.compute.targets if "{target}" in pattern else ("",))
    )
    return tuple(dict.fromkeys(found))
