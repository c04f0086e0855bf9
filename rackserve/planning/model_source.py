"""Where a planned model comes from, and where it lies on its host. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from rackserve.domain.model import GgufFile, LanguageModel

# The branch that is followed where nobody states a revision: once, at the first fetch.
MAIN = "main"
# In a checkpoint's folder: its files as they were verified when they came.
MANIFEST = ".rackserve-manifest.json"


@dataclass(frozen=True, slots=True)
class GgufSource:
    """One file that the catalogue pins. `path` is its place on the host."""

    url: str
    sha256: str
    size_bytes: int
    path: str


@dataclass(frozen=True, slots=True)
class SnapshotSource:
    """A checkpoint's repository at `hub`. `path` is the folder on the host that the server is told.

    revision: a commit; None is what `main` was when a host first fetched it, which its `path` leads to.
    """

    hub: str
    repo: str
    revision: str | None
    path: str


def checkpoint_source(
    model: LanguageModel, quantization_label: str, hub: str, models_dir: str, revision: str | None = None
) -> SnapshotSource:
    """The checkpoint published in this format, else the model's own repository.

    quantization_label: as planning.quantize calls formats, `none` for unquantized weights. revision: what the operator
    states; left out, what the catalogue pins, if it does.
    """
    checkpoints = {checkpoint.quantization: checkpoint for checkpoint in model.checkpoints}
    checkpoint = checkpoints.get(quantization_label)
    repo = checkpoint.repo if checkpoint else model.repo
    pinned = (checkpoint.revision if checkpoint else None) or (model.revision if repo == model.repo else None)
    chosen = revision or pinned
    folder = f"{repo.replace('/', '--')}@{chosen or MAIN}"
    return SnapshotSource(hub.rstrip("/"), repo, chosen, f"{models_dir}/{folder}")


def gguf_source(model: LanguageModel, quantization: str, hub: str, models_dir: str) -> GgufSource | None:
    """The model's file at this quantization; None where the catalogue lists none."""
    files = (gguf for gguf in model.gguf if gguf.quantization == quantization)
    return next((file_source(model, gguf, hub, models_dir) for gguf in files), None)


def file_source(model: LanguageModel, gguf: GgufFile, hub: str, models_dir: str) -> GgufSource:
    """One file of the model."""
    url = f"{hub.rstrip('/')}/{model.repo}/resolve/{model.revision}/{gguf.file}"
    return GgufSource(url, gguf.sha256, gguf.size_bytes, f"{models_dir}/{model.folder}/{gguf.file}")
