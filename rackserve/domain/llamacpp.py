"""How llama.cpp's llama-server can be had: distribution packages, release archives, and builds for each backend."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from rackserve.domain.base import AbsolutePath, FileName, Frozen, Sha256, Url
from rackserve.domain.gpu import Version
from rackserve.domain.repository import PackagePattern, RepositoryName
from rackserve.domain.stack import Backend, SystemId


class PackageNames(Frozen):
    """What the same things are called where apt installs them and where dnf does. {target}: of the GPU (gfx1100)."""

    deb: tuple[PackagePattern, ...] = ()
    rpm: tuple[PackagePattern, ...] = ()


class DistributionPackage(Frozen):
    """A distribution release that carries the runtime, and where its server program then is."""

    distribution: str
    codename: str
    package: str
    program: str
    source: str
    date: str


class ReleaseArchive(Frozen):
    """A release archive, pinned by its SHA-256.

    architecture: as `uname -m` prints it. glibc: the C library it was linked to; 0 where there is none (macOS).
    """

    architecture: str
    backend: Backend
    url: Url
    sha256: Sha256
    glibc: Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)*$")]
    source: str
    date: str


class SourceArchive(Frozen):
    """The source distribution on the Python package index that vendors the runtime's source below `folder`."""

    package: str
    version: str
    file: FileName
    sha256: Sha256
    folder: str
    source: str
    date: str


class BackendPackages(Frozen):
    """What a backend needs on some systems: to be built, and to run.

    toolkit: release of CUDA, ROCm or oneAPI, which lies in prefix: for the compiler, and for its libraries at run time.
    repositories: names of those that have these packages; empty where the system's own archive has them.
    build_packages: beside those of any build; None where it cannot be built from packages.
    libraries: beside those of any program.
    """

    backend: Backend
    systems: tuple[SystemId, ...]
    toolkit: Version | None = None
    prefix: AbsolutePath | None = None
    repositories: tuple[RepositoryName, ...] = ()
    build_packages: PackageNames | None = None
    libraries: PackageNames
    source: str
    date: str


class LlamaCppFacts(Frozen):
    """All of it. libraries: what any program links; build_packages: what any build needs."""

    packages: tuple[DistributionPackage, ...]
    archives: tuple[ReleaseArchive, ...]
    libraries: PackageNames
    build_packages: PackageNames
    build: SourceArchive
    backends: tuple[BackendPackages, ...] = ()
