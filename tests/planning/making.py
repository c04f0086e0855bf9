"""Small catalogues, hosts and plans to test with."""

from __future__ import annotations

from typing import Any

from rackserve.catalog.architectures.reader import read_config
from rackserve.catalog.loader import Catalog, load_catalog
from rackserve.domain.errors import Problem
from rackserve.domain.host import Host
from rackserve.domain.model import GgufFile, LanguageModel
from rackserve.domain.shape import Shape
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import HostPlan, ServicePlan
from rackserve.settings import load_hosts

SMALL = "smollm2-135m-instruct"


def architecture(**changes: Any) -> dict[str, Any]:
    """Facts of a small model, under the names of a config.json."""
    numbers = {
        "layers": 4,
        "kv_heads": 2,
        "key_length": 64,
        "value_length": 64,
        "embedding_length": 256,
        "vocab_size": 1000,
        "context_length": 8192,
    } | changes
    return {
        "model_type": "llama",
        "num_hidden_layers": numbers["layers"],
        "hidden_size": numbers["embedding_length"],
        "num_attention_heads": numbers["kv_heads"],
        "num_key_value_heads": numbers["kv_heads"],
        "head_dim": numbers["key_length"],
        "v_head_dim": numbers["value_length"],
        "intermediate_size": 3 * numbers["embedding_length"],
        "vocab_size": numbers["vocab_size"],
        "max_position_embeddings": numbers["context_length"],
    }


def shape(**changes: Any) -> Shape:
    return read_config(architecture(**changes), "test")


def gguf(quantization: str, size_bytes: int) -> GgufFile:
    return GgufFile(quantization=quantization, file=f"{quantization}.gguf", size_bytes=size_bytes, sha256="0" * 64)


def model(name: str, config: dict[str, Any], *files: GgufFile) -> LanguageModel:
    return LanguageModel(
        name=name,
        repo=f"test/{name}",
        revision="0" * 40,
        config=config,
        gguf=files,
        license="MIT",
        source="test",
        date="2026-11-23",
    )


def catalog_of(*models: LanguageModel) -> Catalog:
    return load_catalog().model_copy(update={"models": {entry.name: entry for entry in models}})


def cpu_host(memory_mib: int, services: list[dict[str, Any]], **data: Any) -> Host:
    return load_hosts([("h1", {"gpu_tag": "cpu", "memory_mib": memory_mib, "services": services} | data)])[0]


def plan(host: Host, catalog: Catalog | None = None) -> HostPlan:
    return plan_hosts((host,), catalog or load_catalog())[0]


def planned(memory_mib: int, catalog: Catalog | None = None, **service: Any) -> ServicePlan:
    """The plan of a host's only service, which has to fit."""
    result = plan(cpu_host(memory_mib, [{"name": "a", "model": SMALL} | service]), catalog)
    assert not result.errors
    return result.services[0]


def refused(memory_mib: int, catalog: Catalog | None = None, **service: Any) -> Problem:
    """Why a host's only service does not fit."""
    result = plan(cpu_host(memory_mib, [{"name": "a", "model": SMALL} | service]), catalog)
    assert not result.services
    assert len(result.errors) == 1
    return result.errors[0]
