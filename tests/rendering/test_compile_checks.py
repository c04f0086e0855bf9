"""What asks a release whether it compiles: the service's own unit and drop-in, but for what a oneshot has to be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.planning.engine_facts import compiler_for
from rackserve.planning.plans import AnyServicePlan, HostPlan
from rackserve.rendering import host_files
from rackserve.rendering.compile_checks import CHECK_BASE_UNIT, check_files, check_unit, checked
from rackserve.rendering.text import RenderedFile
from rackserve.rendering.units import BASE_UNIT, drop_in, unit_digest
from tests.rendering.fleet import every_plan, plan_of
from tests.rendering.test_nodes import planned as spread_out
from tests.rendering.units import analyze, directives, needs_systemd

Directives = set[tuple[str, str, str]]
# What a server has and a oneshot has not: others to start beside it, a folder that goes when its unit stops, a life.
SERVER_ONLY = {
    *(("Unit", key) for key in ("After", "Wants", "StartLimitBurst", "StartLimitIntervalSec", "Description")),
    *(("Unit", key) for key in ("Requires", "JoinsNamespaceOf")),
    *(("Service", key) for key in ("Type", "ExecStart", "ExecStartPost", "ExecStop", "Restart", "RestartSec")),
    *(("Service", key) for key in ("RestartPreventExitStatus", "RuntimeDirectory", "RuntimeDirectoryMode")),
    ("Install", "WantedBy"),
}


def native(tag: str, runtime: str, **service: object) -> HostPlan:
    plan = plan_of(tag, runtime, **service)
    assert plan is not None
    return plan


def both(plan: HostPlan) -> tuple[Directives, Directives]:
    """The directives of the service's unit with its drop-in, and those of its check."""
    texts = {file.path: file.text for file in host_files(plan)}
    (service,) = plan.all_services
    place = f"/etc/systemd/system/{check_unit(service.name)}.d/10-plan.conf"
    own = texts[BASE_UNIT] + drop_in(service).text
    return set(directives(own)), set(directives(texts[CHECK_BASE_UNIT] + texts[place]))


COMPILING = (
    native("h100-pcie", "vllm"),
    native("v100-32gb-sxm", "vllm"),
    native("h200", "sglang"),
    spread_out(distributed="ray")["h1"],
)


@pytest.mark.parametrize("plan", COMPILING, ids=lambda plan: plan.host.gpu_tag)
def test_the_sandbox_is_the_services(plan):
    service, check = both(plan)
    assert {(section, key) for section, key, _ in service - check} <= SERVER_ONLY
    assert {(section, key) for section, key, _ in check - service} <= {
        *(("Unit", key) for key in ("After", "Wants", "Description", "StartLimitIntervalSec")),
        *(("Service", key) for key in ("Type", "ExecStart", "TimeoutStopSec")),
    }
    assert ("Service", "Type", "oneshot") in check
    assert not [entry for entry in check if entry[1] in {"Restart", "ExecStartPost", "ExecStop", "RuntimeDirectory"}]


def command(plan: HostPlan) -> str:
    _, check = both(plan)
    (line,) = (value for _, key, value in check if key == "ExecStart" and value)
    return " ".join(line.split())


def test_it_is_asked_by_the_planned_releases_python_what_its_version_compiles():
    # No key: nothing that is asked needs one.
    assert command(native("h100-pcie", "vllm")) == (
        "/usr/libexec/rackserve/launch --gpus 0 -- "
        "/opt/rackserve/planned/vllm/bin/python -IB /usr/libexec/rackserve/compile-check "
        "--programs nvcc,ninja,c++,gcc --headers cuda.h,cuda_runtime.h,curand_kernel.h,cuda/std/type_traits "
        "--libraries cudart,cuda --architecture 90a --python-headers"
    )
    assert "planned/sglang/bin/python" in command(native("h200", "sglang"))
    # CUDA 12's wheels have no nvcc, and this version compiles nothing with one.
    assert command(native("v100-32gb-sxm", "vllm")).endswith("compile-check --programs gcc --python-headers")


@pytest.mark.parametrize(
    ("tag", "architecture"), [("l40s", "89"), ("a100-80gb-sxm", "80"), ("b200", "100a"), ("rtx-5090", "120f")]
)
def test_what_is_compiled_for_is_what_the_runtime_compiles_for_on_this_card(tag, architecture):
    assert f"--architecture {architecture} " in command(native(tag, "sglang"))


def test_who_compiles_nothing_or_in_an_image_is_asked_nothing():
    asked = {
        (runtime, plan.all_services[0].launch.container is None) for _, runtime, plan in every_plan() if checked(plan)
    }
    assert asked == {("vllm", True), ("sglang", True)}
    assert check_files(native("mi300x", "vllm")) == ()
    assert check_files(native("cpu", "llama.cpp")) == ()


def test_every_version_for_cuda_that_is_pinned_says_what_it_compiles_with_what_it_has():
    catalog = load_catalog()
    pinned = [entry for entry in catalog.requirements.values() if entry.backend == "cuda"]
    assert {entry.runtime for entry in pinned} >= {"vllm", "sglang"}
    for entry in pinned:
        compiler = compiler_for(catalog, entry.runtime, entry.version, entry.backend)
        assert compiler is not None, entry.id
        assert ("nvcc" in compiler.programs) == ("\nnvidia-cuda-nvcc==" in entry.text), entry.id
        assert ("ninja" in compiler.programs) <= ("\nninja==" in entry.text), entry.id


def test_what_asks_restarts_nobody():
    (service,) = native("h100-pcie", "vllm").all_services
    assert service.launch.compiling is not None
    otherwise = replace(service.launch.compiling, programs=("gcc",), architecture="", headers=())
    assert unit_digest(asking(service, otherwise)) == unit_digest(service)
    # Where it keeps what it compiles is its own process's business.
    moved = replace(service.launch.compiling, caches=(("HOME", "."),))
    assert unit_digest(asking(service, moved)) != unit_digest(service)


def asking(service: AnyServicePlan, compiling: object) -> AnyServicePlan:
    return replace(service, launch=replace(service.launch, compiling=compiling))


@needs_systemd
@pytest.mark.parametrize("plan", COMPILING[:3], ids=lambda plan: plan.host.gpu_tag)
def test_systemd_verifies_it_without_a_word(plan, tmp_path: Path):
    (service,) = plan.all_services
    stubs = [
        RenderedFile(f"/opt/rackserve/planned/{name}/bin/python", "#!/bin/sh\n", "755") for name in ("vllm", "sglang")
    ]
    stubs += [
        RenderedFile(f"/etc/systemd/system/{name}", f"[Unit]\nDescription={name}\n")
        for name in ("sysinit.target", "basic.target", "shutdown.target")
    ]
    gpu_ready = RenderedFile("/etc/systemd/system/gpu-ready.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n")
    for file in (*host_files(plan), *stubs, gpu_ready, RenderedFile("/bin/true", "#!/bin/sh\n", "755")):
        path = tmp_path / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, encoding="utf-8")
        path.chmod(int(file.mode, 8))
    done = analyze(f"--root={tmp_path}", "verify", check_unit(service.name), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
