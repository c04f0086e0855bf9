"""The planner against llama.cpp's own llama-fit-params (results/llamacpp.json, see README.md).

Weights are estimated from the shape and the file type, as they are where no file is known; with a file its size is
taken. Working memory is an upper bound by design, so its errors are shown with their sign.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.accuracy.llama_models import MODELS
from bench.accuracy.spread import percent
from rackserve.catalog.architectures.reader import read_config, read_config_file
from rackserve.domain.errors import InputError
from rackserve.domain.shape import Shape
from rackserve.planning.gguf_weights import gguf_weights
from rackserve.planning.memory import MIB, compute_bytes, context_bytes

RESULTS = Path(__file__).with_name("results") / "llamacpp.json"
# Settings that the planner never makes (one cache for all slots, windows kept in full, no flash attention), and layers
# in the host's RAM.
_OTHER_SETTINGS = ("unified", "swa_full", "flash", "gpu_layers")


# MODELS' own configs are told apart by their class alone.
_TYPES = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Gemma3ForConditionalGeneration": "gemma3_text",
    "DeepseekV2ForCausalLM": "deepseek_v2",
    "CohereForCausalLM": "cohere",
    "Cohere2ForCausalLM": "cohere2",
}


@dataclass(frozen=True, slots=True)
class LlamaCase:
    """One model as llama.cpp would run it, with the planner's reading of its config."""

    row: Mapping[str, Any]
    shape: Shape

    @property
    def name(self) -> str:
        """Model, file type and how it is run."""
        row = self.row
        run = f"{row['ctx']} tokens, {row['slots']} slots, KV {row['kv_type']}, -ub {row['ubatch']}"
        return f"{row['model']} {row['quantization']}, {run}"

    @property
    def weights_error(self) -> float | None:
        """Percent of the file's bytes; None for a file type whose mix the planner does not know."""
        parts = gguf_weights(self.shape, self.row["quantization"], None)
        return percent(parts.file, self.row["file_bytes"]) if parts else None

    @property
    def context_error(self) -> float:
        """Percent of the KV cache and the states."""
        return percent(context_bytes(self.shape, *self._run) / MIB, self.row["context_mib"])

    @property
    def compute_mib(self) -> float:
        """MiB of working memory more than llama-server's: negative is too little."""
        return float(compute_bytes(self.shape, *self._run) / MIB - self.row["server_compute_mib"])

    @property
    def total_error(self) -> float:
        """Percent of context and working memory together, with the file's own size: what decides whether it fits."""
        row = self.row
        parts = context_bytes(self.shape, *self._run) + compute_bytes(self.shape, *self._run)
        actual = row["model_mib"] + row["context_mib"] + row["server_compute_mib"]
        return percent(row["model_mib"] + parts / MIB, actual)

    @property
    def _run(self) -> tuple[str, int, int, int]:
        row = self.row
        return row["kv_type"], row["ctx"] // row["slots"], row["slots"], row["ubatch"]


def read_shape(model: str, configs: Path) -> Shape | str:
    """The planner's reading of a model's config, or why there is none."""
    known = MODELS[model]
    try:
        if isinstance(known, str):
            return read_config_file(configs / f"{known}_config.json")
        return read_config({**known, "model_type": _TYPES[known["architectures"][0]]}, model)
    except InputError as error:
        return "; ".join(problem.message for problem in error.problems)


def cases(configs: Path, path: Path = RESULTS) -> Iterator[LlamaCase]:
    """The rows with settings that the planner makes, of models whose config it reads."""
    shapes: dict[str, Shape | str] = {}
    for row in json.loads(path.read_text(encoding="utf-8"))["cases"]:
        if any(key in row for key in _OTHER_SETTINGS):
            continue
        shape = shapes.setdefault(row["model"], read_shape(row["model"], configs))
        if isinstance(shape, Shape):
            yield LlamaCase(row, shape)


def version(path: Path = RESULTS) -> str:
    """The llama.cpp that the rows were made with."""
    text: str = json.loads(path.read_text(encoding="utf-8"))["llama_cpp"].removeprefix("version: ")
    return text
