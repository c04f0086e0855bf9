"""What is rendered for a fixed inventory, byte for byte, and what systemd says of it.

After a wanted change: RACKSERVE_WRITE_GOLDEN=1 pytest tests/rendering/test_golden.py, then read the diff.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import HostPlan
from rackserve.rendering import host_files
from rackserve.rendering.text import RenderedFile
from rackserve.rendering.units import drop_in, unit_digest
from rackserve.settings import load_hosts
from tests.planning.making import SMALL, planned
from tests.rendering.units import analyze, directives, needs_systemd

GOLDEN = Path(__file__).parent / "golden"
INVENTORY: list[tuple[str, dict[str, Any]]] = [
    (
        "h1",
        {
            "gpu_tag": "cpu",
            "memory_mib": 16384,
            "services": [
                {
                    "name": "chat",
                    "model": "qwen3-8b",
                    "kv_cache_dtype": "q8_0",
                    "concurrency": 4,
                    "max_model_len": 8000,
                    "avg_tokens": 4000,
                    "listen": "10.0.0.5",
                    "allow_from": ["10.0.0.0/8", "2001:db8::/32"],
                    "api_key_file": "/home/operator/secret/chat.key",
                },
                {"name": "small-one", "model": SMALL, "threads": 4, "port": 9000},
            ],
        },
    ),
]


@pytest.fixture(scope="module")
def host_plan() -> HostPlan:
    (plan,) = plan_hosts(load_hosts(INVENTORY), load_catalog())
    assert not plan.errors
    return plan


@pytest.fixture(scope="module")
def files(host_plan: HostPlan) -> dict[str, RenderedFile]:
    return {file.path: file for file in host_files(host_plan)}


@pytest.fixture(scope="module")
def root(files: dict[str, RenderedFile], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file system with what is rendered, and stubs for what the host brings."""
    folder = tmp_path_factory.mktemp("root")
    stubs = [RenderedFile("/opt/rackserve/current/llama.cpp/bin/llama-server", "#!/bin/sh\n", "755")] + [
        RenderedFile(f"/etc/systemd/system/{name}.target", f"[Unit]\nDescription={name}\n")
        for name in ("sysinit", "basic", "shutdown", "multi-user", "network-online", "timers")
    ]
    for file in [*files.values(), *stubs]:
        path = folder / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, encoding="utf-8")
        path.chmod(int(file.mode, 8))
    return folder


UNITS = ("rackserve@chat.service", "rackserve@small-one.service")
UNIT_FILES = (
    "/etc/systemd/system/rackserve@.service",
    "/etc/systemd/system/rackserve-health@.service",
    "/etc/systemd/system/rackserve-health@.timer",
    *(f"/etc/systemd/system/{unit}.d/10-plan.conf" for unit in UNITS),
)


@pytest.mark.parametrize("path", UNIT_FILES)
def test_a_unit_file_is_the_golden_one(files, path):
    # The digest covers more than this file; it has tests of its own.
    text = re.sub(r"\b[0-9a-f]{64}\b", "DIGEST", files[path].text)
    golden = GOLDEN / path.removeprefix("/etc/systemd/system/")
    if os.environ.get("RACKSERVE_WRITE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_a_host_gets_these_files_and_no_others(files):
    helpers = ("drain", "gpu-in-use", "health", "launch", "rackserve_helpers.py", "wait-ready")
    services = ("/etc/rackserve/services/chat.json", "/etc/rackserve/services/small-one.json")
    assert {path: file.mode for path, file in files.items()} == dict.fromkeys((*UNIT_FILES, *services), "644") | {
        f"/usr/libexec/rackserve/{name}": "755" for name in helpers
    }
    assert list(files) == sorted(files)


def test_a_host_without_services_gets_no_files():
    (plan,) = plan_hosts(load_hosts([("h1", {"gpu_tag": "cpu"})]), load_catalog())
    assert host_files(plan) == ()


def test_every_file_ends_with_one_newline_and_holds_nothing_unrendered(files):
    for file in files.values():
        assert file.text.endswith("\n")
        assert not file.text.endswith("\n\n")
        # A helper is a program of its own, and no template.
        if not file.path.startswith("/usr/libexec/"):
            assert not re.search(r"\{\{|\}\}|\{%|%\}", file.text), file.path


def test_no_file_says_where_the_operator_keeps_keys(files):
    for file in files.values():
        assert "/home/operator" not in file.text
        assert "chat.key" not in file.text


# systemd's own tools


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_verifies_the_unit_without_a_word(root, unit):
    done = analyze(f"--root={root}", "verify", unit, cwd=root)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_systemd_would_have_said_a_word_about_a_misspelt_directive(root, tmp_path):
    unit = root / "etc/systemd/system/rackserve@typo.service"
    unit.write_text((root / UNIT_FILES[0].lstrip("/")).read_text() + "[Service]\nExecStart=/bin/true\nProtectHom=yes\n")
    done = analyze(f"--root={root}", "verify", unit.name, cwd=tmp_path)
    unit.unlink()
    assert "ProtectHom" in done.stderr


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_rates_the_units_exposure_at_most_2(root, unit):
    done = analyze("security", f"--root={root}", "--offline=yes", "--threshold=20", unit, cwd=root)
    assert done.returncode == 0, done.stdout[-300:]
    assert "Overall exposure level" in done.stdout


@needs_systemd
def test_systemd_reads_the_limits_that_were_planned(root, host_plan):
    shown = analyze(f"--root={root}", "verify", UNITS[0], cwd=root, debug=True).stdout
    plan = host_plan.services[0]
    assert f"MemoryMax: {plan.footprint.limit_mib * 1024**2}" in shown
    assert f"ReadOnlyPaths: {plan.model_path}" in shown
    assert f"RequiresMountsFor: {plan.model_path}" in shown
    assert "api-key-file /run/credentials/rackserve@chat.service/api-key" in shown
    assert f"--ctx-size {plan.context_size} " in shown


# the digest

BASE: dict[str, Any] = {"max_model_len": 2048, "concurrency": 2, "threads": 2, "port": 9000}
CHANGES: list[dict[str, Any]] = [
    {"max_model_len": 4096},
    {"concurrency": 4},
    {"kv_cache_dtype": "q8_0"},
    {"threads": 3},
    {"max_output_tokens": 100},
    {"temperature": 0.5},
    {"repetition_penalty": None},
    {"threads": None},
    {"port": 9001},
    {"listen": "10.0.0.5"},
    {"allow_from": ["10.0.0.0/8"]},
    {"name": "b"},
    {"model": "qwen3-0.6b"},
]


def test_every_decided_value_has_its_own_digest():
    digests = [unit_digest(planned(65536, **BASE | change)) for change in [{}, *CHANGES]]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("data", [{"models_dir": "/data"}, {"start_timeout": 100}])
def test_a_host_setting_that_reaches_the_unit_changes_the_digest(data):
    host = {"gpu_tag": "cpu", "memory_mib": 65536, "services": [{"name": "a", "model": SMALL} | BASE]}
    (changed,) = plan_hosts(load_hosts([("h1", host | data)]), load_catalog())
    assert unit_digest(changed.services[0]) != unit_digest(planned(65536, **BASE))


@pytest.mark.parametrize(
    ("memory_mib", "service"),
    [
        (65536, {}),
        (32768, {}),
        (65536, {"quantization": "Q4_K_M"}),
        (65536, {"avg_tokens": 1024}),
        (65536, {"max_model_len": 2000}),
        (65536, {"api_key_file": "/elsewhere"}),
    ],
)
def test_what_decides_nothing_new_leaves_the_digest_alone(memory_mib, service):
    # A digest that moves without need restarts a server that is in use.
    assert unit_digest(planned(memory_mib, **BASE | service)) == unit_digest(planned(65536, **BASE))


def test_the_drop_in_carries_its_digest_where_the_process_can_be_asked_for_it(host_plan):
    for service in host_plan.services:
        digest = unit_digest(service)
        assert ("Service", "Environment", f"RACKSERVE_DIGEST={digest}") in directives(drop_in(service).text)
        assert re.fullmatch(r"[0-9a-f]{64}", digest)
