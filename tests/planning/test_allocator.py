"""What PyTorch's allocator adds to weights, by its rule and in start logs."""

from __future__ import annotations

import pytest

from rackserve.planning.allocator import MIB, rounding
from tests.planning.sizing import request, sized

GIB = 1024**3


@pytest.mark.parametrize(
    ("mib", "added"),
    [
        # Below 10 MiB tensors share segments; a rest over 1 MiB is given to others.
        (9.5, 0),
        (259, 1),
        (129.5, 0.5),
        (24.5, 0),
        (260, 0),
    ],
)
def test_a_large_tensor_takes_whole_segments_and_keeps_a_small_rest(mib, added):
    assert rounding(int(mib * MIB)) == added * MIB


@pytest.mark.parametrize(("model", "gib"), [("qwen2.5-7b-instruct", 14.25), ("phi-4", 27.39)])
def test_weights_are_those_of_the_logs_rounding_included(model, gib):
    # "Model loading took", vLLM 0.19 on H100.
    loaded = sized(model=model).weights_bytes / GIB
    assert loaded == pytest.approx(gib, abs=0.006)
    assert request(model=model).shape.parameters * 2 / GIB < gib - 0.04
