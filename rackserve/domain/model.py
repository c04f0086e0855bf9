"""A language model: where its files are, what proves them, and the facts that decide its memory."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from rackserve.domain.base import FileName, Frozen, Sha256

Repo = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")]
Revision = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]


class GgufFile(Frozen):
    """One file of weights at one quantization, pinned by size and SHA-256."""

    quantization: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,20}$")]
    file: FileName
    size_bytes: int = Field(gt=0)
    sha256: Sha256


class Checkpoint(Frozen):
    """A repository that holds the model's weights in one number format, as planning.quantize calls it.

    revision: the commit it is taken at; left out, what `main` is when a host first fetches it.
    """

    quantization: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,20}$")]
    repo: Repo
    revision: Revision | None = None


class LanguageModel(Frozen):
    """A model of the catalogue.

    config: the keys of its config.json that decide its memory, under their own names.
    gguf: files for llama.cpp in `repo` at `revision`, the preferred one first. checkpoints: repositories for the other
    runtimes; the unquantized one has quantization `none`.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,60}$")]
    repo: Repo
    revision: Revision | None = None
    config: dict[str, Any]
    gguf: tuple[GgufFile, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    license: str
    source: str
    date: str

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if self.gguf and self.revision is None:
            msg = "revision is needed where gguf lists files: they are pinned by it"
            raise ValueError(msg)
        return self

    @property
    def folder(self) -> str:
        """Folder name on a host: repository and revision, so that two revisions never mix."""
        return f"{self.repo.replace('/', '--')}@{self.revision}"
