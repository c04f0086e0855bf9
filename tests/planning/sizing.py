"""Requests to size, with the facts of the catalogue."""

from __future__ import annotations

from typing import Any

from rackserve.catalog.architectures.reader import read_config
from rackserve.catalog.loader import load_catalog
from rackserve.catalog.shapes import shape_of
from rackserve.domain.shape import Shape
from rackserve.planning.engine_facts import engine_for
from rackserve.planning.instance import size_instance
from rackserve.planning.request import Request
from rackserve.planning.sized import Sizing

CATALOG = load_catalog()
NEWEST = {"vllm": "0.33.0", "sglang": "0.5.23", "tensorrt-llm": "1.2.1", "llama.cpp": "0.6.0", "ollama": "0.33.0"}

LLAMA_8B = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}


def shape(**changes: Any) -> Shape:
    return read_config(LLAMA_8B | changes, "test")


def request(tag: str = "h100-sxm-80gb", model: str | Shape | None = None, **changes: Any) -> Request:
    gpu = CATALOG.gpus[tag]
    runtime = changes.pop("runtime", "vllm")
    version = changes.pop("version", NEWEST[runtime])
    listed = CATALOG.models.get(model) if isinstance(model, str) else None
    settings: dict[str, Any] = {
        "model": listed.name if listed else "test",
        "shape": shape_of(listed) if listed else (model or shape()),
        "gpu": gpu,
        "total_mib": gpu.usable_mib,
        "runtime": runtime,
        "version": version,
        "engine": engine_for(CATALOG, runtime, version),
    }
    return Request(**(settings | changes))


def sized(*arguments: Any, **changes: Any) -> Sizing:
    result = size_instance(request(*arguments, **changes))
    assert isinstance(result, Sizing), result
    return result


def impossible(*arguments: Any, **changes: Any) -> str:
    result = size_instance(request(*arguments, **changes))
    assert isinstance(result, str), result
    return result
