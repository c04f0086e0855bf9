"""When a service that does not come up is left alone, and what it waits for before it is started."""

from __future__ import annotations

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import HostPlan
from rackserve.rendering import host_files
from rackserve.runtimes.launch import DRAIN_S
from rackserve.settings import load_hosts
from tests.rendering.fleet import every_plan, host_of
from tests.rendering.units import directives

BASE = "/etc/systemd/system/rackserve@.service"
CASES = (
    ("cpu", "llama.cpp"),
    ("h100-pcie", "vllm"),
    ("rtx-4060-ti-16gb", "lmstudio"),
    ("mi300x", "vllm"),
    ("h100-pcie", "tensorrt-llm"),
)


def planned(tag: str, runtime: str, **host: object) -> HostPlan:
    (plan,) = plan_hosts(load_hosts([("h1", host_of(tag, runtime) | host)]), load_catalog())
    assert not plan.errors
    return plan


def values(plan: HostPlan, key: str) -> list[str]:
    """What the unit has for a key; an empty one takes back what stands before it."""
    files = {file.path: file.text for file in host_files(plan)}
    contained = [text for path, text in files.items() if path.endswith(".container")]
    drop_in = next(text for path, text in files.items() if path.endswith("rackserve@chat.service.d/10-plan.conf"))
    found: list[str] = []
    for text in (*(contained or [files[BASE]]), drop_in):
        for _, name, value in directives(text):
            if name == key:
                found = [*found, value] if value else []
    return found


@pytest.mark.parametrize("start_timeout", [10, 900, 7200])
@pytest.mark.parametrize(("tag", "runtime"), CASES)
def test_five_starts_that_fail_as_slowly_as_they_can_are_the_last(tag, runtime, start_timeout):
    plan = planned(tag, runtime, start_timeout=start_timeout)
    interval, burst, stop, pause = (
        int(values(plan, key)[-1])
        for key in ("StartLimitIntervalSec", "StartLimitBurst", "TimeoutStopSec", "RestartSec")
    )
    # systemd times each command by itself. prepare-container has limits of its own, and is done in seconds.
    commands = [*values(plan, "ExecStartPre"), *values(plan, "ExecStartPost")]
    slow = [command for command in commands if "prepare-container" not in command]
    one = len(slow) * int(values(plan, "TimeoutStartSec")[-1]) + DRAIN_S + stop + pause
    assert burst == 5
    assert interval >= max(burst * one, 3600)


@pytest.mark.parametrize(
    "plan", [plan for _, _, plan in every_plan() if plan.gpu.vendor != "apple"], ids=lambda plan: plan.host.name
)
def test_the_disk_that_the_model_is_on_comes_first(plan):
    (service,) = plan.all_services
    files = {file.path: file.text for file in host_files(plan)}
    contained = [text for path, text in files.items() if path.endswith(".container")]
    if contained:
        # podman's generator says so of every volume, in all its versions.
        assert f"\nVolume={service.model_path}:" in contained[0]
    else:
        (drop_in,) = (text for path, text in files.items() if path.endswith(f"{service.unit}.d/10-plan.conf"))
        assert ("Unit", "RequiresMountsFor", service.model_path) in directives(drop_in)
