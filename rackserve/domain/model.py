"""A language model: where its files are, what proves them, and the numbers that decide its memory."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from rackserve.domain.base import FileName, Frozen, Sha256

Repo = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")]
Revision = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]


class GgufFile(Frozen):
    """One file of weights at one quantization, pinned by size and SHA-256."""

    quantization: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,20}$")]
    file: FileName
    size_bytes: int = Field(gt=0)
    sha256: Sha256


class Architecture(Frozen):
    """What of a transformer decides the size of its KV cache; one KV rate for every layer."""

    name: Literal["llama", "qwen2", "qwen3"]
    layers: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    key_length: int = Field(gt=0)
    value_length: int = Field(gt=0)
    embedding_length: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    context_length: int = Field(gt=0)


class LanguageModel(Frozen):
    """A model of the catalogue. `gguf` lists its quantizations, the preferred one first."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,60}$")]
    repo: Repo
    revision: Revision
    architecture: Architecture
    gguf: tuple[GgufFile, ...] = Field(min_length=1)
    license: str
    source: str
    date: str

    @property
    def folder(self) -> str:
        """Folder name on a host: repository and revision, so that two revisions never mix."""
        return f"{self.repo.replace('/', '--')}@{self.revision}"
