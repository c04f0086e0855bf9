"""What is rendered for every runtime on every tag that it supports, read by systemd's own tools."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from rackserve.planning.plans import AnyServicePlan
from rackserve.rendering import host_files
from rackserve.rendering.text import RenderedFile
from tests.rendering.fleet import RUNTIMES, every_plan
from tests.rendering.units import analyze, needs_systemd

EXPOSURE = re.compile(r"Overall exposure level for (\S+): ([0-9.]+)")
ON_LINUX = [(tag, runtime, plan) for tag, runtime, plan in every_plan() if plan.gpu.vendor != "apple"]
NATIVE = [entry for entry in ON_LINUX if entry[2].all_services[0].launch.container is None]
each = pytest.mark.parametrize(
    "plan", [plan for _, _, plan in NATIVE], ids=[f"{tag}-{name}" for tag, name, _ in NATIVE]
)


def service_of(plan) -> AnyServicePlan:
    (service,) = plan.all_services
    return service


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A file system with the files of all hosts, and stubs for what hosts bring."""
    folder = tmp_path_factory.mktemp("root")
    programs = {path for _, _, plan in NATIVE for path in (service_of(plan).launch.program, *commands(plan))}
    stubs = [RenderedFile(program, "#!/bin/sh\n", "755") for program in programs]
    stubs += [
        RenderedFile(f"/etc/systemd/system/{name}.target", f"[Unit]\nDescription={name}\n")
        for name in ("sysinit", "basic", "shutdown", "multi-user", "network-online", "timers")
    ]
    for file in [*stubs, *(file for _, _, plan in NATIVE for file in host_files(plan))]:
        path = folder / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, encoding="utf-8")
        path.chmod(int(file.mode, 8))
    return folder


def commands(plan) -> list[str]:
    launch = service_of(plan).launch
    return [words[0] for words in (launch.argv, *launch.before, *launch.after)]


def test_every_runtime_has_tags_and_every_tag_a_runtime():
    runtimes = Counter(runtime for _, runtime, _ in every_plan())
    assert set(runtimes) == set(RUNTIMES)
    assert min(runtimes.values()) >= 20
    assert len({tag for tag, _, _ in every_plan()}) >= 60


@needs_systemd
def test_systemd_verifies_every_unit_without_a_word(root):
    units = [service_of(plan).unit for _, _, plan in NATIVE]
    timers = [unit.replace("rackserve@", "rackserve-health@").replace(".service", ".timer") for unit in units[:1]]
    done = analyze(f"--root={root}", "verify", *units, *timers, cwd=root)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_systemd_rates_the_exposure_of_every_unit_at_most_2(root):
    units = {service_of(plan).unit for _, _, plan in NATIVE}
    done = analyze("security", f"--root={root}", "--offline=yes", "--threshold=20", *units, cwd=root)
    rated = {unit: float(score) for unit, score in EXPOSURE.findall(done.stdout)}
    assert set(rated) == units
    assert max(rated.values()) <= 2.0
    assert done.returncode == 0


@needs_systemd
def test_systemd_rates_the_health_check_at_most_2(root):
    unit = "rackserve-health@s0.service"
    done = analyze("security", f"--root={root}", "--offline=yes", "--threshold=20", unit, cwd=root)
    assert done.returncode == 0, done.stdout[-200:]


@each
def test_it_may_open_its_own_cards_and_no_others(plan):
    text = next(file.text for file in host_files(plan) if file.path.endswith("10-plan.conf"))
    allowed = re.findall(r"^DeviceAllow=(\S+)", text, re.MULTILINE)
    cards = [path for path in allowed if path.startswith("/dev/rackserve/")]
    if plan.gpu.vendor == "none":
        assert "PrivateDevices=yes" in text
        assert allowed == []
    else:
        assert cards == ["/dev/rackserve/gpu0"]
        assert "PrivateDevices" not in text
        assert "char-" not in text


@each
def test_no_key_is_in_it(plan):
    for file in host_files(plan):
        assert not re.search(r"sk-[A-Za-z0-9]{8}|--api-key[ =](?!file)|API_KEY=", file.text), file.path
