"""What a plan of a host's own memory says of the lengths that it chose or refused."""

from __future__ import annotations

import pytest

from tests.planning.making import architecture, catalog_of, gguf, model, planned, refused

MIB = 1024**2


def test_a_model_of_less_than_one_step_is_planned_with_what_it_was_made_for():
    tiny = model("tiny", architecture(context_length=200), gguf("X", MIB))
    chosen = planned(4096, catalog_of(tiny), model="tiny")
    assert chosen.max_model_len == 200
    assert any("the shortest there is" in reason for reason in chosen.reasons)
    assert not any("None" in reason for reason in chosen.reasons)


@pytest.mark.parametrize("average", [7000, 9000])
def test_an_average_that_the_model_leaves_no_headroom_is_refused(average):
    problem = refused(4096, avg_tokens=average)
    assert problem.key == "avg_tokens"
    assert f"{average} x 1.2" in problem.message
    assert "8192 tokens" in problem.message
