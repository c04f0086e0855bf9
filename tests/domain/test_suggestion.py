"""What an operator probably meant."""

from __future__ import annotations

import pytest

from rackserve.domain.errors import suggestion

NAMES = ("rtx-3090", "rtx-4090", "h100-sxm-80gb", "llama-3.1-8b-instruct", "llama-3.3-70b-instruct")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("4090", "did you mean rtx-4090?"),
        ("llama-70b", "did you mean llama-3.3-70b-instruct?"),
        ("rtx-4o90", "did you mean rtx-4090, rtx-3090?"),
        ("zzz", "known: h100-sxm-80gb, llama-3.1-8b-instruct, llama-3.3-70b-instruct, rtx-3090, rtx-4090"),
    ],
)
def test_a_near_name_is_offered_or_all_of_them(written, told):
    assert suggestion(written, NAMES) == told
