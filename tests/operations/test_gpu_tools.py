"""The Container Toolkit's and Apple's operations: nothing where all is as wanted, else exactly the difference."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from rackserve.facts.container_toolkit import ContainerToolkit, parse_toolkit
from rackserve.facts.wired_limit import WiredLimit, WiredLimitState
from rackserve.operations.apple_memory import wired_limit
from rackserve.operations.container_toolkit import cdi_specification, engine_configured
from tests.operations.sending import commands, script_of
from tests.planning.driver_pairs import planned

PLAN = planned("l40s", "debian-12", container_engines=["docker"], gpu_count=2)
FRESH = parse_toolkit(
    ["unit=enabled active", *(f"device=nvidia.com/gpu={name}" for name in ("0", "1", "all")), "engine=docker"]
)
LIMIT = {"limit_mib": 98304, "label": "io.rackserve.gpu-memory", "path": "/Library/x.plist", "text": "<plist/>\n"}


def test_a_fresh_specification_of_all_gpus_is_left_alone():
    assert commands(cdi_specification, {ContainerToolkit: FRESH}, plan=PLAN) == []


def test_a_specification_that_is_stale_short_or_not_kept_fresh_is_made_anew():
    for state in (
        replace(FRESH, stale=True),
        replace(FRESH, refreshing=False),
        replace(FRESH, devices=("nvidia.com/gpu=0", "nvidia.com/gpu=all")),
    ):
        (sent,) = commands(cdi_specification, {ContainerToolkit: state}, plan=PLAN)
        assert script_of(sent) == ("cdi.sh", "nvidia-cdi-refresh.path", "2")


def test_an_engine_is_configured_once():
    (sent,) = commands(engine_configured, {ContainerToolkit: FRESH}, plan=PLAN, engine="docker")
    assert script_of(sent) == ("container-engine.sh", "docker")
    known = replace(FRESH, configured=frozenset({"docker"}))
    assert commands(engine_configured, {ContainerToolkit: known}, plan=PLAN, engine="docker") == []


def test_an_engine_that_is_not_there_is_refused_with_its_key():
    (sent,) = commands(engine_configured, {ContainerToolkit: FRESH}, plan=PLAN, engine="containerd")
    assert "container_engines names containerd, which is not installed" in sent.get_raw_value()


def test_a_memory_limit_that_is_in_force_and_will_be_is_left_alone():
    right = WiredLimitState(98304, hashlib.sha256(b"<plist/>\n").hexdigest(), loaded=True)
    assert commands(wired_limit, {WiredLimit: right}, **LIMIT) == []
    for wrong in (replace(right, limit_mib=0), replace(right, sha256=""), replace(right, loaded=False)):
        (sent,) = commands(wired_limit, {WiredLimit: wrong}, **LIMIT)
        assert script_of(sent) == ("wired-limit.sh", LIMIT["label"], LIMIT["path"], "98304", LIMIT["text"])
