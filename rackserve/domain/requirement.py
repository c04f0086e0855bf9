"""Python runtimes as pinned packages: which files pin them, uv that installs them, the Pythons that systems have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from rackserve.domain.base import AbsolutePath, Frozen, Sha256
from rackserve.domain.gpu import Version
from rackserve.domain.llamacpp import PackageNames
from rackserve.domain.repository import PackagePattern
from rackserve.domain.stack import ReleaseVersion, Some, SystemId

WheelBackend = Literal["cuda", "rocm", "cpu"]
# As `uname -m` prints it.
Architecture = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,20}$")]
PythonVersion = Annotated[str, StringConstraints(pattern=r"^3\.[0-9]{1,2}$")]
DistributionName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=100)]
Day = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]


def python_number(version: str) -> tuple[int, ...]:
    """A Python version to compare: "3.9" is older than "3.12"."""
    return tuple(int(part) for part in version.split("."))


class Requirements(Frozen):
    """All packages of one runtime version for one backend, each with the hashes of its files.

    file: requirements as pip and uv read them; relative to the catalogue's file. The loader reads it: text is what is
    in it, pinned the runtime's version there with its local part (+rocm723).
    family: the release that PyTorch says it was built for: CUDA's ("13.0") or HIP's ("7.2"); none for the CPU.
    architectures, glibc, python_min, python_before: hosts and interpreters that all of its packages have wheels for.
    as_of: it was compiled from what the index had before this day. None where an operator's file does not say.
    constraints: what it was compiled with beside that, as pip reads them.
    without: distributions that are left out though others ask for them.
    nvcc: the CUDA release of the nvcc among its packages by architecture, which the loader reads from the file as well.
    installed_gib: what the environment takes on disk, bytecode included.
    packages: of the distribution, that the runtime needs beside a Python with its headers.
    """

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([.+-][a-z0-9]+)*$", max_length=80)]
    runtime: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([.-][a-z0-9]+)*$", max_length=40)]
    version: ReleaseVersion
    backend: WheelBackend
    family: Version | None = None
    file: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]+$", max_length=1000)]
    text: str = Field(default="", repr=False)
    pinned: str = ""
    architectures: Some[Architecture]
    glibc: Version
    python_min: PythonVersion
    python_before: PythonVersion
    as_of: Day | None = None
    constraints: tuple[str, ...] = ()
    without: tuple[DistributionName, ...] = ()
    nvcc: Mapping[Architecture, Version] = Field(default_factory=dict)
    installed_gib: int = Field(ge=1, le=1000)
    packages: PackageNames = PackageNames()
    source: str
    date: str

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.family is None) != (self.backend == "cpu"):
            msg = "family has to say which CUDA or HIP PyTorch was built for, and is left out for the CPU"
            raise ValueError(msg)
        if python_number(self.python_min) >= python_number(self.python_before):
            msg = f"no Python is both python_min {self.python_min} or newer and older than {self.python_before}"
            raise ValueError(msg)
        return self

    def suits(self, python: str) -> bool:
        """Whether all of its packages have wheels for this version of Python."""
        return python_number(self.python_min) <= python_number(python) < python_number(self.python_before)

    def hosts(self) -> Iterator[tuple[str, str]]:
        """Each version of Python and architecture that it is for."""
        (major, first), (_, before) = python_number(self.python_min), python_number(self.python_before)
        for minor in range(first, before):
            for architecture in self.architectures:
                yield f"{major}.{minor}", architecture


class CudaWheels(Frozen):
    """Distributions of a CUDA toolkit that have to be of one CUDA release: `nvcc`, and what it compiles with.

    runtime: with the headers that all go by. cccl: the one that is numbered otherwise.
    """

    nvcc: str
    runtime: str
    cccl: str
    beside: tuple[str, ...]
    source: str
    date: str


class Nvcc(Frozen):
    """A release of nvcc. gcc: the newest release of gcc that it compiles with."""

    id: Version
    gcc: int = Field(ge=4, le=99)
    source: str
    date: str


class OtherGcc(Frozen):
    """A release of gcc that a distribution has beside its own, as gcc-VERSION and g++-VERSION in /usr/bin."""

    version: int = Field(ge=4, le=99)
    packages: Some[PackagePattern]


class SystemGcc(Frozen):
    """The releases of gcc of one system. own: what `gcc` is. others: in order of preference."""

    id: SystemId
    own: int = Field(ge=4, le=99)
    others: tuple[OtherGcc, ...] = ()
    source: str
    date: str


class Uv(Frozen):
    """The installer of environments, itself a wheel of the Python package index.

    wheels: SHA-256 of its wheel by architecture. packages: what the distribution's own Python needs to install it.
    headers: of the distribution's own Python, for what compiles extension modules at run time.
    """

    version: ReleaseVersion
    wheels: Mapping[Architecture, Sha256]
    packages: PackageNames
    headers: PackageNames
    source: str
    date: str

    @property
    def requirement(self) -> str:
        """The requirements file that pins it."""
        hashes = "".join(f" \\\n    --hash=sha256:{sha256}" for sha256 in self.wheels.values())
        return f"uv=={self.version}{hashes}\n"


class Interpreter(Frozen):
    """A Python that a distribution has beside its own, with the packages that bring it and its headers."""

    version: PythonVersion
    program: AbsolutePath
    packages: Some[PackagePattern]


class SystemPython(Frozen):
    """The Pythons of one system. own: the version of its /usr/bin/python3. others: in order of preference."""

    id: SystemId
    own: PythonVersion
    others: tuple[Interpreter, ...] = ()
    source: str
    date: str


# Sections of named entries, and the key that holds the entry's name.
REQUIREMENT_ENTRY_TYPES: Mapping[str, tuple[type[Frozen], str]] = {
    "requirements": (Requirements, "id"),
    "pythons": (SystemPython, "id"),
    "nvcc": (Nvcc, "id"),
    "gccs": (SystemGcc, "id"),
}
