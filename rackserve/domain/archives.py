"""Release archives of runtimes that bring all they need along: Ollama's, and those of LM Studio's server."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from rackserve.domain.base import Frozen, Sha256, Sha512, Url
from rackserve.domain.llamacpp import PackageNames
from rackserve.domain.stack import Backend, ReleaseVersion, Some

# Runtimes that are installed from such an archive.
ArchiveRuntime = Literal["ollama", "lmstudio"]


class PinnedArchive(Frozen):
    """An archive and its checksum, of the kind that its vendor publishes: one of the two."""

    url: Url
    sha256: Sha256 | None = None
    sha512: Sha512 | None = None

    @model_validator(mode="after")
    def _one_checksum(self) -> Self:
        if (self.sha256 is None) == (self.sha512 is None):
            msg = "expected sha256 or sha512, one of them"
            raise ValueError(msg)
        return self

    @property
    def checksum(self) -> str:
        """The one that there is; its length tells which kind it is."""
        return self.sha256 or self.sha512 or ""


class RuntimeArchive(PinnedArchive):
    """The archive of one version for Linux on one kind of CPU (as `uname -m` prints it).

    backends: what the runtime in it can compute with. size_bytes: 0 where nobody has told. packages: what unpacks it,
    and what its programs link.
    """

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([._+-][a-z0-9]+)*$", max_length=60)]
    runtime: ArchiveRuntime
    version: ReleaseVersion
    architecture: str
    backends: Some[Backend]
    size_bytes: int = Field(default=0, ge=0)
    packages: PackageNames
    source: str
    date: str
