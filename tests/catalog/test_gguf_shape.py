"""A GGUF header's shape, held to what llama.cpp allocates for 28 models (bench/accuracy/results/llamacpp.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rackserve.catalog.gguf_header import GgufFacts
from rackserve.catalog.gguf_shape import KNOWN, shape_from_gguf
from rackserve.domain.errors import InputError
from rackserve.planning.memory import compute_bytes, context_bytes

MIB = 1024**2
RESULTS = json.loads((Path(__file__).parents[2] / "bench" / "accuracy" / "results" / "llamacpp.json").read_text())
CASES = [
    case
    for case in RESULTS["cases"]
    if "gpu_mib" not in case and not case.get("unified") and not case.get("swa_full") and case.get("flash", True)
]


def facts_of(model: str) -> GgufFacts:
    entry = RESULTS["models"][model]
    numbers: dict[str, Any] = {
        key: tuple(map(int, value)) if isinstance(value, list) else int(value)
        for key, value in entry["metadata"].items()
        if isinstance(value, int | list)
    }
    layers, heads = numbers["block_count"], numbers["attention.head_count_kv"]
    tensors = next(iter(entry["tensor_bytes"].values()))
    return GgufFacts(
        architecture=entry["architecture"],
        layers=layers,
        context_length=numbers["context_length"],
        embedding_length=numbers["embedding_length"],
        heads=numbers["attention.head_count"],
        kv_heads=heads if isinstance(heads, tuple) else (heads,) * layers,
        key_length=numbers["attention.key_length"],
        value_length=numbers["attention.value_length"],
        vocab_size=numbers["vocab_size"],
        tensor_bytes=tensors["total"],
        file_type="Q4_K_M",
        sliding_window=numbers.get("attention.sliding_window"),
        embedding_bytes=tensors["token_embd"],
        output_bytes=tensors["output"],
        numbers=numbers,
    )


def test_there_is_something_to_compare_with():
    assert len(CASES) > 200
    assert len({RESULTS["models"][case["model"]]["architecture"] for case in CASES}) >= 10


@pytest.mark.parametrize("model", sorted(RESULTS["models"]))
def test_context_is_llama_cpps_own_and_the_compute_buffer_is_never_below_it(model):
    shape = shape_from_gguf(facts_of(model), "test")
    compared = [case for case in CASES if case["model"] == model]
    assert compared
    for case in compared:
        per_slot = case["ctx"] // case["slots"]
        settings = (shape, case["kv_type"], per_slot, case["slots"], case["ubatch"])
        # The program rounds down to whole MiB.
        assert 0 <= context_bytes(*settings) / MIB - case["context_mib"] < 1, case
        assert compute_bytes(*settings) / MIB >= case["server_compute_mib"], case


def test_an_architecture_that_nobody_listed_is_refused_by_its_name():
    facts = facts_of("Llama 3.1 8B")
    assert facts.architecture in KNOWN
    strange = {name: getattr(facts, name) for name in GgufFacts.__slots__} | {"architecture": "megamind"}
    with pytest.raises(InputError, match=r"x\.gguf: general\.architecture: megamind is not known"):
        shape_from_gguf(GgufFacts(**strange), "x.gguf")
