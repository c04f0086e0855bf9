"""One entry to sizing an instance, whatever the runtime."""

from __future__ import annotations

from rackserve.planning import sizing
from rackserve.planning.gguf_sizing import size_gguf
from rackserve.planning.request import Request
from rackserve.planning.sized import Sizing

# Runtimes that load GGUF files with llama.cpp's engine.
GGUF_RUNTIMES = ("llama.cpp", "ollama", "lmstudio")


def size_instance(request: Request) -> Sizing | str:
    """The sizing, or why the request cannot be asked for at all."""
    return size_gguf(request) if request.runtime in GGUF_RUNTIMES else sizing.size(request)
