"""Where Python runtimes come from: pinned packages in a virtual environment for each runtime and version. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import get_args

from packaging.version import Version

from rackserve.catalog.loader import Catalog
from rackserve.domain.llamacpp import PackageNames
from rackserve.domain.node import Node
from rackserve.domain.requirement import Interpreter, Requirements, Uv, WheelBackend
from rackserve.domain.stack import RuntimeVersions
from rackserve.planning.driver_recipes import package_manager

OWN_PYTHON = "/usr/bin/python3"


@dataclass(frozen=True, slots=True)
class FromRequirements:
    """An environment made of a requirements file with hashes, for one interpreter.

    version: of the runtime's distribution, local part included. family: the release of CUDA or HIP that its PyTorch has
    to report, in as many parts as it has to agree in; empty for the CPU. text: of the requirements file.
    python: the interpreter's version ("3.12"). program: where it is; None for one that uv downloads from its vendor.
    packages: of the distribution. installed_gib: what the environment takes on disk.
    nvcc: the release of the nvcc that is among the packages, and gcc: the release of the host's gcc that it is given;
    both empty where there is no nvcc, gcc also where it takes the host's own. without: distributions that are left out.
    """

    runtime: str
    version: str
    backend: WheelBackend
    family: str
    text: str = field(repr=False)
    python: str
    program: str | None
    packages: tuple[str, ...]
    installed_gib: int
    uv: Uv
    nvcc: str = ""
    gcc: str = ""
    without: tuple[str, ...] = ()

    @property
    def last(self) -> str:
        """What is in its release only once that is complete, and can be executed."""
        return "cuda/bin/nvcc" if self.nvcc else "bin/python"

    @property
    def release(self) -> str:
        """Folder name below RELEASES: it changes with each package, the interpreter and the gcc it is given."""
        # Only what there is: where nothing is added, hosts keep the releases that they have.
        added = [f"gcc {self.gcc}\n"] if self.gcc else []
        added += [f"without {name}\n" for name in sorted(self.without)]
        digest = hashlib.sha256("".join([self.text, *added]).encode()).hexdigest()[:12]
        return f"{self.runtime}-{self.version}-{self.backend}-{digest}-py{self.python}"


@dataclass(frozen=True, slots=True)
class _Wish:
    """A runtime's version that a host is to have. `here` is for sentences."""

    runtime: str
    version: str
    backend: WheelBackend
    catalog: Catalog
    node: Node

    @property
    def what(self) -> str:
        return f"{self.runtime} {self.version} for {self.backend}"

    @property
    def here(self) -> str:
        return f"{self.node.distribution} {self.node.codename or self.node.version} on {self.node.architecture}"

    def names(self, packages: PackageNames) -> tuple[str, ...]:
        """What packages are called on this host."""
        return packages.rpm if package_manager(self.node.system) == "dnf" else packages.deb


def wheel_backend(backend: str) -> WheelBackend | None:
    """The backend of a build as wheels have it; None for one that no wheel is made for."""
    known: tuple[WheelBackend, ...] = get_args(WheelBackend)
    return next((name for name in known if name == backend), None)


def environment_origin(
    runtime: str, version: str, backend: WheelBackend, catalog: Catalog, node: Node
) -> FromRequirements | str:
    """Where this version of a runtime comes from on such a host, or the sentence that says why nowhere."""
    wish = _Wish(runtime, version, backend, catalog, node)
    if node.architecture not in catalog.uv.wheels:
        known = ", ".join(catalog.uv.wheels)
        return f"{wish.what}: uv, which installs it, is pinned for Linux on {known}, this host is {wish.here}"
    entry = _pinned(wish)
    return entry if isinstance(entry, str) else _origin(wish, entry)


def _pinned(wish: _Wish) -> Requirements | str:
    wanted = (wish.runtime, wish.version, wish.backend)
    entries = wish.catalog.requirements.values()
    entry = next((entry for entry in entries if (entry.runtime, entry.version, entry.backend) == wanted), None)
    if entry is None:
        return _not_catalogued(wish)
    if wish.node.architecture not in entry.architectures:
        return f"the pinned requirements of {wish.what} are for {', '.join(entry.architectures)}, not for {wish.here}"
    if Version(wish.node.glibc) < Version(entry.glibc):
        return (
            f"the wheels of {wish.what} need glibc {entry.glibc}, {wish.here} has {wish.node.glibc}: take a newer "
            "system, or the runtime's container image"
        )
    return entry


def _not_catalogued(wish: _Wish) -> str:
    name = f"{wish.runtime}-{wish.version}-{wish.backend}"
    return (
        f'no pinned requirements of {wish.what} in the catalogue{_others(wish)}: add [requirements."{name}"] to a file '
        "named by `catalog`, with what `uv pip compile --generate-hashes` writes where the wheels can be reached"
    )


def _others(wish: _Wish) -> str:
    known = [entry for entry in wish.catalog.requirements.values() if entry.runtime == wish.runtime]
    said = ", ".join(f"{entry.version} for {entry.backend}" for entry in known)
    return f", which has {said}" if said else ""


def _versions(wish: _Wish) -> RuntimeVersions | None:
    """The catalogue's range of versions that holds this one."""
    release = Version(Version(wish.version).base_version)
    for entry in wish.catalog.stacks.runtimes.values():
        if entry.runtime == wish.runtime and Version(entry.first) <= release < Version(entry.before):
            return entry
    return None


def _origin(wish: _Wish, pinned: Requirements) -> FromRequirements | str:
    compiler = _gcc(wish, pinned.nvcc.get(wish.node.architecture, ""))
    if isinstance(compiler, str):
        return compiler
    found = next((found for found in _interpreters(wish) if pinned.suits(found.version)), None)
    uv = wish.catalog.uv
    # A Python of uv's brings its own headers.
    packages = (*wish.names(uv.packages), *(found.packages if found else ()), *wish.names(pinned.packages))
    gcc, gcc_packages = compiler
    return FromRequirements(
        runtime=wish.runtime,
        version=pinned.pinned,
        backend=wish.backend,
        family=pinned.family or "",
        text=pinned.text,
        python=found.version if found else _managed(wish, pinned),
        program=found.program if found else None,
        packages=tuple(dict.fromkeys((*packages, *gcc_packages))),
        installed_gib=pinned.installed_gib,
        uv=uv,
        nvcc=pinned.nvcc.get(wish.node.architecture, ""),
        gcc=gcc,
        without=pinned.without,
    )


def _gcc(wish: _Wish, nvcc: str) -> tuple[str, tuple[str, ...]] | str:
    """The release of the host's gcc that nvcc is given and its packages, or the sentence that says why there is none.

    Both are empty where nvcc takes `gcc` itself, or nobody knows better.
    """
    release, system = wish.catalog.nvcc.get(nvcc), wish.catalog.gccs.get(wish.node.system)
    if release is None or system is None or system.own <= release.gcc:
        return "", ()
    known = next((other for other in system.others if other.version <= release.gcc), None)
    if known is None:
        return (
            f"nvcc {nvcc}, which compiles kernels for {wish.what}, knows gcc up to {release.gcc}; {wish.here} has "
            f"{system.own} and none that is older: take another system, or the runtime's container image"
        )
    return str(known.version), known.packages


def _interpreters(wish: _Wish) -> Iterator[Interpreter]:
    """The distribution's own Python, which it patches, then others that it has."""
    known = wish.catalog.pythons.get(wish.node.system)
    own = wish.node.python or (known.own if known else "")
    if own:
        yield Interpreter(version=own, program=OWN_PYTHON, packages=wish.names(wish.catalog.uv.headers))
    if known:
        yield from known.others


def _managed(wish: _Wish, pinned: Requirements) -> str:
    """The version of a Python of uv's: the one that the stack's tables prefer, else the oldest that suits."""
    versions = _versions(wish)
    preferred = versions.python if versions else None
    return preferred if preferred is not None and pinned.suits(preferred) else pinned.python_min
