"""Numbers that servers are started with, and those that units are made with: where they come from and what they are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rackserve.rendering.units import _start_limit, _start_timeout
from tests.runtimes.test_vllm_nodes import ALONE, RAY_WAY, launched

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"


def ray(option: str, rank: int = 0) -> str:
    head = launched(rank, RAY_WAY)
    words = head.companion.argv if head.companion is not None else head.argv
    return next(word.partition("=")[2] for word in words if word.startswith(f"--{option}="))


def test_ray_has_200_ports_of_which_workers_get_those_from_the_tenth_on():
    assert (ray("min-worker-port"), ray("max-worker-port")) == ("20010", "20199")


def test_ray_holds_a_gib_of_objects():
    assert ray("object-store-memory") == ray("object-store-memory", 1) == str(1024**3)


def test_each_of_rays_processes_has_a_port_of_its_own():
    numbers = [int(ray(name)) for name in ("node-manager-port", "object-manager-port", "runtime-env-agent-port")]
    numbers += [int(ray(name)) for name in ("dashboard-agent-grpc-port", "dashboard-agent-listen-port")]
    numbers += [int(ray(name)) for name in ("metrics-export-port", "ray-client-server-port")]
    assert sorted(numbers) == list(range(20001, 20008))


@pytest.mark.parametrize(
    ("start_timeout", "seconds"),
    # An hour at least: six starts of a command of 500 s and 30 more, a stop of 55 s and a pause of 15 s are as long.
    [(500, 3600), (501, 3606), (10, 3600)],
)
def test_starts_are_counted_for_an_hour_or_for_as_long_as_six_take(start_timeout, seconds):
    launch: Any = SimpleNamespace(before=(), after=(), stop_s=55)
    assert _start_limit(SimpleNamespace(start_timeout=start_timeout), launch) == seconds  # type: ignore[arg-type]


def test_starts_are_those_that_the_unit_counts_and_pauses_those_that_it_makes():
    unit = (TEMPLATES / "systemd/rackserve@.service.j2").read_text("utf-8")
    burst, pause = (int(found) for found in re.findall(r"^(?:StartLimitBurst|RestartSec)=(\d+)$", unit, re.MULTILINE))
    long: Any = SimpleNamespace(before=(), after=(), stop_s=0)
    one, two = (_start_limit(SimpleNamespace(start_timeout=s), long) for s in (5000, 5001))  # type: ignore[arg-type]
    assert two - one == burst + 1
    assert one == (burst + 1) * (5000 + 30 + pause)


def test_systemds_limit_of_a_start_comes_30_seconds_after_the_probes():
    assert _start_timeout(SimpleNamespace(start_timeout=600)) == 630  # type: ignore[arg-type]


@pytest.mark.parametrize(("shutdown", "stop"), [(0, 50), (30, 80)])
def test_a_stop_has_30_seconds_for_requests_and_20_of_grace(shutdown, stop):
    assert replace(ALONE, shutdown_s=shutdown).stop_s == stop
