"""deploys/drivers.py for every tag under every system, on hosts that only pretend: from virgin to converged."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pytest

from rackserve.planning.decision_table import cell
from tests.planning.driver_pairs import PAIRS, planned
from tests.roles.driving import ORDER, drive, named, told
from tests.roles.fakes import Run
from tests.roles.gpu_box import CATALOG, SYSTEMS, Box
from tests.roles.gpu_expected import NAMES, carries, count, expected, refusal

CELLS = [pair for pair in PAIRS if carries(*pair)]
UNCARRIED = [pair for pair in PAIRS if not carries(*pair)]
DRIVER = ORDER[:7]


@dataclass
class Driven:
    boxes: dict[str, Box]
    first: Run
    second: Run


@functools.cache
def driven(system: str) -> Driven:
    """All tags that this system carries, as hosts of one run, and then of a second one."""
    boxes = {tag: Box(tag, system, count(tag)) for tag, other in CELLS if other == system}
    return Driven(boxes, drive(boxes), drive(boxes))


@functools.cache
def refused(system: str) -> Run:
    """All tags that this system does not carry, beside a host that has nothing to do with it."""
    boxes = {tag: Box(tag, system, count(tag)) for tag, other in UNCARRIED if other == system}
    return drive({**boxes, "bystander": Box("l4", "debian-12")})


def test_the_matrix_is_the_catalogues():
    assert set(NAMES) == set(SYSTEMS) == set(CATALOG.stacks.systems)
    assert len(CELLS) + len(UNCARRIED) == len(PAIRS) == len(CATALOG.gpus) * len(CATALOG.stacks.systems)


@pytest.mark.parametrize(("tag", "system"), CELLS, ids=str)
def test_a_virgin_host_is_sent_what_its_card_takes_on_its_system_and_nothing_else(tag, system):
    run = driven(system).first
    found = told(run, tag)
    if CATALOG.gpus[tag].vendor == "apple":
        found = [line[:3] for line in found]
    assert tag not in run.failed
    assert found == expected(tag, system)


@pytest.mark.parametrize(("tag", "system"), CELLS, ids=str)
def test_a_converged_host_is_sent_nothing(tag, system):
    run = driven(system).second
    assert tag not in run.failed
    assert told(run, tag) == []
    # Looked at all the same.
    assert run.operations[tag] != []


@pytest.mark.parametrize("system", NAMES)
def test_what_a_host_has_written_down_is_the_plan_that_was_carried_out(system):
    for tag, box in driven(system).boxes.items():
        plan = planned(tag, system, name=f"@fake/{tag}", gpu_count=box.count)
        assert box.digest == (plan.digest if plan.modules else "")


@pytest.mark.parametrize("system", NAMES)
def test_operations_come_in_the_order_of_the_deploy(system):
    run = driven(system).first
    found = named(run)
    assert found == [name for name in ORDER if name in found]
    for tag, operations in run.operations.items():
        vendor = CATALOG.gpus[tag].vendor
        wanted = {"none": DRIVER[:1], "apple": [DRIVER[0], ORDER[-1]]}.get(vendor, DRIVER)
        assert len(operations) == len(wanted)


@pytest.mark.parametrize(("tag", "system"), UNCARRIED, ids=str)
def test_a_pair_without_a_driver_is_refused_for_the_tables_reason_and_sent_nothing_else(tag, system):
    run = refused(system)
    assert tag in run.failed
    ((verb, text),) = told(run, tag)
    assert verb == "refuse"
    reason = refusal(tag, system)
    assert [line for line in text.splitlines() if f": {reason}" in line] != []
    assert reason.replace(tag, "the card") in cell(CATALOG, tag, system).refused


@pytest.mark.parametrize("system", sorted({system for _, system in UNCARRIED}))
def test_a_host_beside_refused_ones_goes_on(system):
    run = refused(system)
    assert "bystander" not in run.failed
    assert told(run, "bystander") == expected("l4", "debian-12")
