"""Where a model's facts come from on the command line: the catalogue, a config.json or a GGUF file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rackserve.catalog.architectures.reader import read_config_file
from rackserve.catalog.gguf_header import read_gguf
from rackserve.catalog.gguf_shape import shape_from_gguf
from rackserve.catalog.loader import Catalog
from rackserve.catalog.shapes import shape_of
from rackserve.domain.errors import InputError, Problem, suggestion
from rackserve.domain.model import LanguageModel
from rackserve.domain.shape import Shape
from rackserve.planning.gpu_fit import offered


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model to size. `reference` is what the runtime is told to load; `runtime` the only one that can, if so.

    file_parts: bytes of the embedding and of the output matrix of the one GGUF file.
    """

    name: str
    reference: str
    shape: Shape
    listed: LanguageModel | None = None
    files: tuple[tuple[str, int], ...] = ()
    runtime: str | None = None
    file_parts: tuple[int, int] | None = None

    def offered(self, runtime: str) -> tuple[str, ...]:
        """Formats that it is published in, where it is a model of the catalogue."""
        return offered(self.listed, runtime) if self.listed is not None else tuple(name for name, _ in self.files)


def model_source(catalog: Catalog, model: str | None, config: Path | None, gguf: Path | None) -> ModelSource:
    """The one that was named. Raises InputError unless it is exactly one, or for what is wrong with it."""
    given = [value for value in (model, config, gguf) if value is not None]
    if len(given) != 1:
        hint = "one of --model NAME, --config config.json, --gguf FILE"
        raise InputError([Problem(f"{len(given)} models are named, expected one", key="--model", hint=hint)])
    if config is not None:
        return _from_config(config)
    if gguf is not None:
        facts = read_gguf(gguf)
        size = (facts.file_type, facts.tensor_bytes)
        shape = shape_from_gguf(facts, str(gguf))
        parts = (facts.embedding_bytes, facts.output_bytes)
        return ModelSource(gguf.stem, str(gguf), shape, files=(size,), runtime="llama.cpp", file_parts=parts)
    listed = catalog.models.get(model or "")
    if listed is None:
        hint = f"{suggestion(model or '', catalog.models)}; any other model: --config with its own config.json"
        raise InputError([Problem(f"{model} is not in the catalogue", key="--model", hint=hint)])
    files = tuple((file.quantization, file.size_bytes) for file in listed.gguf)
    return ModelSource(listed.name, listed.repo, shape_of(listed), listed, files)


def _from_config(path: Path) -> ModelSource:
    """A config.json, or the folder of the checkpoint that it stands in."""
    file = path / "config.json" if path.is_dir() else path
    shape = read_config_file(file)
    folder = file.resolve().parent.name if file.name == "config.json" else file.stem.removesuffix("_config")
    name = folder or "model"
    # A lone file is no checkpoint that a runtime could load: its model is only named.
    has_checkpoint = (file.parent / "config.json").is_file()
    return ModelSource(name, str(file.parent) if has_checkpoint else name, shape)
