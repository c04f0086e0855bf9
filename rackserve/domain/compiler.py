"""What a runtime compiles while it serves, by version: the catalogue's `compilers` tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from rackserve.domain.base import Frozen, Tag
from rackserve.domain.requirement import WheelBackend
from rackserve.domain.stack import Capability, ReleaseVersion, Some

# Each becomes a word of a command line, or a part of one; commas separate them there.
Program = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=40)]
Library = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=40)]
Header = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+/-]*$", max_length=100)]
CudaArchitecture = Annotated[str, StringConstraints(pattern=r"^[0-9]{2,3}[af]?$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$", max_length=60)]
# Below a folder of the service's own; a dot is that folder.
Below = Annotated[str, StringConstraints(pattern=r"^(\.|[a-z0-9.][a-z0-9_-]*)$", max_length=40)]


class Compiler(Frozen):
    """What one runtime compiles with, and keeps, from one version on, until the next entry of the same runtime.

    since: the first version. backend: of the build that does so.
    programs: found on the unit's PATH; nvcc among them where CUDA sources are compiled. python_headers: Python.h is
    included by what gcc compiles. headers: included by what nvcc compiles; libraries: linked with it.
    architectures: nvcc's name of a compute capability ("9.0": "90a") where it is not just its digits.
    first_start_s: seconds that the first start takes longer than those that find all of it compiled.
    caches: by environment variable, where what was compiled is kept, below the folder of the service and its release.
    """

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+$")]
    runtime: Tag
    since: ReleaseVersion
    backend: WheelBackend
    programs: Some[Program]
    python_headers: bool
    headers: tuple[Header, ...] = ()
    libraries: tuple[Library, ...] = ()
    architectures: Mapping[Capability, CudaArchitecture] = Field(default_factory=dict)
    first_start_s: int = Field(ge=0, le=7200)
    caches: Mapping[Variable, Below]
    source: str
    date: str

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.headers or self.libraries) and "nvcc" not in self.programs:
            msg = "headers and libraries are for what nvcc compiles, which is not among its programs"
            raise ValueError(msg)
        # Most of them are somewhere below it where no variable says otherwise.
        if self.caches.get("HOME") != ".":
            msg = 'caches has to have HOME = "."'
            raise ValueError(msg)
        return self

    def architecture(self, capability: tuple[int, int]) -> str:
        """What nvcc calls a compute capability."""
        major, minor = capability
        return self.architectures.get(f"{major}.{minor}", f"{major}{minor}")
