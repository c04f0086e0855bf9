"""Whether the loaded driver is the planned one: what the fake and the lab hosts do not show by themselves."""

from __future__ import annotations

import pytest

from rackserve.planning.driver_load import kernel_owed, not_loaded
from tests.planning.driver_pairs import planned
from tests.planning.test_gpu_preflight import cards, state_of

OLD, NEW = "6.8.0-88-generic", "6.17.0-20-generic"


def test_a_kernel_that_has_the_module_and_does_not_know_the_card_is_to_be_left():
    plan = planned("arc-b580", "ubuntu-24.04")
    state = state_of(plan, OLD, next_kernel=NEW, loaded={"xe": ""})
    reason = f"Linux {OLD} does not drive GPU 0000:1b:00.0, {NEW} is installed"
    assert (kernel_owed(plan, state), not_loaded(plan, state)) == (reason, (reason,))


@pytest.mark.parametrize(
    ("tag", "system", "kernel", "driver"),
    [
        # It is booted; the next one is the same; the card is driven already; the plan brings no kernel.
        ("arc-b580", "ubuntu-24.04", NEW, "xe"),
        ("arc-b580", "ubuntu-24.04", NEW, ""),
        ("arc-b580", "ubuntu-24.04", OLD, "xe"),
        ("arc-b580", "ubuntu-26.04", OLD, ""),
    ],
)
def test_no_other_kernel_is_owed(tag, system, kernel, driver):
    plan = planned(tag, system)
    state = state_of(plan, kernel, next_kernel=NEW, loaded={"xe": ""}, devices=cards(plan, driver=driver))
    assert kernel_owed(plan, state) == ""
    assert not_loaded(plan, state) == ()
