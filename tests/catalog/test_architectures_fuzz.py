"""Whatever stands in a config.json, reading it ends quickly, in a shape or in a list of problems."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from rackserve.catalog.architectures.reader import read_config
from rackserve.domain.errors import InputError, Problem
from rackserve.domain.shape import Shape
from rackserve.planning.weights import weights
from tests.examples import examples

CASES = json.loads(Path(__file__).with_name("architectures.json").read_text(encoding="utf-8"))
QUANTIZED = {
    "quant_method": "fp8",
    "modules_to_not_convert": ["lm_head", "re:.*gate.*"],
    "weight_block_size": [128, 128],
}
MIXED = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": {"a.experts.0": {}}}
CONFIGS = [case["config"] for case in CASES]
CONFIGS += [{**CONFIGS[0], "quantization_config": table} for table in (QUANTIZED, MIXED)]
SECONDS = 5.0

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 1, 2, 4096, 10**9, 10**400, -1, 1.5, float("nan"), float("inf"), "auto", "full_attention", ""]),
    st.floats(),
    st.text(max_size=12),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of each value inside, lists included up to their third entry."""
    found = [path] if path else []
    if isinstance(value, dict):
        entries = list(value.items())
    else:
        entries = list(enumerate(value[:3])) if isinstance(value, list) else []
    for key, inner in entries:
        found += places(inner, (*path, key))
    return found


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A valid config with one to three values replaced or taken away."""
    config = copy.deepcopy(draw(st.sampled_from(CONFIGS)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(config) or [("model_type",)]))
        inner = config
        for key in path[:-1]:
            inner = inner[key]
        if isinstance(inner, dict) and draw(st.booleans()):
            del inner[path[-1]]
        else:
            inner[path[-1]] = draw(values)
    return config


@examples(300, HealthCheck.large_base_example)
@given(mutated())
def test_a_shape_or_problems_and_quickly(config):
    started = time.monotonic()
    found = shape_or_problems(config)
    if isinstance(found, Shape):
        assert found.parameters > 0
        assert weights(found, "", 2).bytes_per_gpu > 0
    else:
        assert found
        assert all(problem.message for problem in found)
    assert time.monotonic() - started < SECONDS


def shape_or_problems(config: dict[str, Any]) -> Shape | tuple[Problem, ...]:
    try:
        return read_config(config, "config.json")
    except InputError as error:
        return error.problems
