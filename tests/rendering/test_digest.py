"""What moves a service's digest, which restarts it: its own process's text, and nothing that only looks at it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from rackserve.planning.plans import AnyServicePlan
from rackserve.rendering import units
from rackserve.rendering.text import RenderedFile, program
from rackserve.rendering.units import companion_unit, probe_file, unit_digest
from tests.rendering.fleet import plan_of
from tests.rendering.test_nodes import planned

HELPERS = (
    *("drain", "gpu-in-use", "health", "launch", "rackserve_helpers.py", "wait-ready"),
    *("lmstudio", "prepare-container", "gpu-ready", "rackserve_gpus.py", "compile-check"),
)
NATIVE_UNITS = {"rackserve@.service"}


def planned_for(tag: str, runtime: str) -> AnyServicePlan:
    plan = plan_of(tag, runtime)
    assert plan is not None
    return plan.all_services[0]


def ray_head() -> AnyServicePlan:
    return planned(distributed="ray")["h1"].all_services[0]


# By how a service runs: what its process comes by, of the helpers and of the units that all services share.
KINDS: dict[str, tuple[Callable[[], AnyServicePlan], set[str]]] = {
    "by itself": (lambda: planned_for("cpu", "llama.cpp"), NATIVE_UNITS),
    "launched": (lambda: planned_for("h100-pcie", "vllm"), NATIVE_UNITS | {"launch", "rackserve_helpers.py"}),
    "lmstudio": (
        lambda: planned_for("rtx-4060-ti-16gb", "lmstudio"),
        NATIVE_UNITS | {"launch", "lmstudio", "rackserve_helpers.py"},
    ),
    "contained": (
        lambda: planned_for("mi300x", "vllm"),
        {"10-plan-container.conf", "prepare-container", "rackserve_helpers.py"},
    ),
    "beside ray": (ray_head, NATIVE_UNITS | {"launch", "rackserve_helpers.py"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_helper_restarts_those_whose_process_comes_by_it(kind, monkeypatch):
    make, expected = KINDS[kind]
    plan = make()
    before, moved = unit_digest(plan), set()
    for changed in HELPERS:
        monkeypatch.setattr(units, "program", lambda name, changed=changed: mended(program(name), changed))
        units.common_files.cache_clear()
        if unit_digest(plan) != before:
            moved.add(changed)
    units.common_files.cache_clear()
    assert moved == {name for name in expected if not name.endswith((".service", ".conf"))}


def mended(file: RenderedFile, changed: str) -> RenderedFile:
    return replace(file, text=f"{file.text}# a comment\n") if file.path.endswith(f"/{changed}") else file


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_unit_restarts_those_that_are_made_of_it(kind, monkeypatch):
    make, expected = KINDS[kind]
    plan = make()
    before, moved = unit_digest(plan), set()
    template, text = units.template_text, units._text
    for changed in (
        "rackserve@.service",
        "rackserve-health@.service",
        "rackserve-health@.timer",
        "10-plan-container.conf",
    ):
        comment = {changed: "# a comment\n"}
        monkeypatch.setattr(units, "_text", lambda name, more=comment: text(name) + more.get(name, ""))
        monkeypatch.setattr(
            units,
            "template_text",
            lambda name, more=comment, **values: (
                template(name, **values) + more.get(name.removeprefix("systemd/").removesuffix(".j2"), "")
            ),
        )
        cleared()
        if unit_digest(plan) != before:
            moved.add(changed)
    monkeypatch.undo()
    cleared()
    assert moved == {name for name in expected if name.endswith((".service", ".conf"))}


def cleared() -> None:
    units.base_text.cache_clear()
    units.common_files.cache_clear()


def test_what_the_helpers_know_of_a_service_moves_nothing():
    plan = planned_for("h100-pcie", "vllm")
    probe = replace(plan.launch.probe, progress=("another:counter",))
    watched_otherwise = replace(plan, launch=replace(plan.launch, probe=probe, gpu_mib=1))
    assert probe_file(watched_otherwise).text != probe_file(plan).text
    assert unit_digest(watched_otherwise) == unit_digest(plan)


@pytest.mark.parametrize("way", ["native", "ray"])
def test_the_other_hosts_of_an_instance_move_it_and_are_no_business_of_the_helpers(way):
    for plan in planned(distributed=way).values():
        (part,) = plan.gpu_services
        assert part.member is not None
        moved = replace(part, member=replace(part.member, cards=(*part.member.cards[:-1], (0,))))
        assert unit_digest(moved) != unit_digest(part)
        assert "member" not in json.loads(probe_file(part).text)


def test_the_units_around_a_service_are_named_after_it():
    assert units.health_units("rackserve@a-b.service") == ("rackserve-health@a-b.timer", "rackserve-health@a-b.service")
    assert companion_unit(ray_head()) == "rackserve-ray@big.service"
