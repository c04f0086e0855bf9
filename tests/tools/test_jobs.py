"""Which jobs there are, which of them begins next, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import virtual
from tools.suite.jobs import LINT, PREPARATIONS, Job, Lane, jobs_of, longest_first, with_preparations
from tools.suite.schedule import Room, next_job

ROOM = Room(lanes=3, cores=2)


def tree(root: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = root / "tests" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def lab(name: str, *needs: str) -> Job:
    return Job(f"lab/{name}", Lane.LAB, tests=(f"tests/lab/{name}.py",), needs=frozenset(needs))


def cpu(name: str, *needs: str) -> Job:
    return Job(name, Lane.CPU, tests=(f"tests/{name}",), needs=frozenset(needs))


def test_modules_that_wait_are_jobs_of_their_own_and_the_others_go_by_folder(tmp_path):
    tree(tmp_path, lab__test_a="", lab__test_b="", lab__conftest="", plan__test_c="", plan__deep__test_d="", test_e="")
    jobs = {job.name: job for job in jobs_of(tmp_path, "all")}
    assert {name: job.lane.value for name, job in jobs.items()} == {
        "lab/test_a": "lab",
        "lab/test_b": "lab",
        "plan": "cpu",
        "top": "cpu",
    }
    assert jobs["plan"].tests == ("tests/plan/deep/test_d.py", "tests/plan/test_c.py")
    assert jobs["lab/test_a"].folder == "lab"


def test_every_test_module_of_this_checkout_is_in_exactly_one_job():
    root = Path(__file__).resolve().parents[2]
    held = [path for job in jobs_of(root, "all") for path in job.tests]
    assert sorted(held) == sorted(str(path.relative_to(root)) for path in (root / "tests").rglob("test_*.py"))
    assert len(held) > 100


def test_who_uses_an_environment_waits_for_it(tmp_path):
    tree(tmp_path, lab__test_a="from tests.contract.harness import options", lab__test_b="import this")
    asks, asks_not = jobs_of(tmp_path, "all")
    assert (asks.needs, asks_not.needs) == ({"contract"}, frozenset())
    assert with_preparations([asks, asks_not])[0] == PREPARATIONS["contract"]
    assert with_preparations([asks_not]) == [asks_not]


def test_virtual_machines_are_set_up_for_the_long_run_alone(tmp_path):
    tree(tmp_path, lab__test_a="pytestmark = pytest.mark.vagrant")
    assert [job.needs for kind in ("test", "all") for job in jobs_of(tmp_path, kind)] == [frozenset(), {"vagrant"}]


def test_the_longest_begins_first_and_what_nobody_has_timed_before_it():
    jobs = [*with_preparations([lab("short"), lab("new"), lab("long", "contract")]), LINT]
    names = [job.name for job in longest_first(jobs, {"lab/short": 5, "lab/long": 100, "lint": 3})]
    assert names == ["prepare/contract", "lint", "lab/new", "lab/long", "lab/short"]


@pytest.mark.parametrize(("running", "begins"), [(2, True), (3, False)])
def test_three_labs_at_once(running, begins):
    beside = [lab(str(number)) for number in range(running)]
    assert (next_job([lab("next")], beside, {}, ROOM) is not None) is begins


def test_beside_labs_one_core_is_left_to_them():
    assert next_job([cpu("b")], [lab("a"), cpu("a")], {}, ROOM) is None
    # Labs that have not begun yet will need it too.
    assert next_job([cpu("b"), lab("a")], [cpu("a")], {}, ROOM) == lab("a")
    assert next_job([cpu("b")], [cpu("a")], {}, ROOM) == cpu("b")
    assert next_job([cpu("c")], [cpu("a"), cpu("b")], {}, ROOM) is None


def test_a_single_core_runs_one_beside_labs():
    assert next_job([cpu("b")], [lab("a")], {}, Room(3, 1)) == cpu("b")


def test_a_preparation_begins_whatever_runs():
    running = [lab("a"), lab("b"), lab("c"), cpu("a"), PREPARATIONS["contract"]]
    assert next_job([PREPARATIONS["model-configs"]], running, {}, ROOM) == PREPARATIONS["model-configs"]


def test_a_job_waits_for_its_preparation_and_others_go_before_it():
    waiting = [cpu("long", "contract"), cpu("short")]
    assert next_job(waiting, [], {}, ROOM) == cpu("short")
    assert next_job(waiting, [], {"prepare/contract": False}, ROOM) == waiting[0]


def test_virtual_machines_are_one_jobs_at_a_time():
    first, second = lab("first", "vagrant"), lab("second", "vagrant")
    prepared = {"prepare/vagrant": True}
    assert next_job([second, lab("other")], [first], prepared, ROOM) == lab("other")
    assert next_job([second], [lab("other")], prepared, ROOM) == second


def test_the_limits_of_a_job_cover_the_deadlines_of_its_steps():
    machines = lab("first", "vagrant")
    assert sum(virtual.STEPS_S) <= machines.limit("all")
    assert machines.grace >= virtual.DESTROY_S + 60
    assert lab("other").limit("test") < lab("other").limit("all") < machines.limit("all")
    assert lab("other").grace < machines.grace
