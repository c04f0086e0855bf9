"""What is served under which name, and where."""

from __future__ import annotations

from dataclasses import dataclass

from rackserve.domain.model import LanguageModel
from rackserve.planning.sized import Sizing


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`model` is a repository or a path, `name` what clients ask for."""

    name: str
    model: str
    host: str = "127.0.0.1"
    port: int = 8001


def endpoint_of(sizing: Sizing, name: str, model: LanguageModel, host: str, port: int) -> Endpoint:
    """Where a catalogue model is loaded from: the checkpoint in the planned format, or the one that is converted."""
    if sizing.offload is not None:
        files = {gguf.quantization: gguf.file for gguf in model.gguf}
        return Endpoint(name, files.get(sizing.quantization, gguf_name(model.name, sizing)), host, port)
    repos = {checkpoint.quantization: checkpoint.repo for checkpoint in model.checkpoints}
    return Endpoint(name, repos.get(checkpoint_format(sizing), model.repo), host, port)


def checkpoint_format(sizing: Sizing) -> str:
    """The number format of the checkpoint that is loaded; what is converted while loading comes unquantized."""
    return "none" if sizing.converted else sizing.weight_format or "none"


def gguf_name(model: str, sizing: Sizing) -> str:
    """What a file that nobody has listed would be called."""
    return f"{model}-{sizing.quantization}.gguf"
