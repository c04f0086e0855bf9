"""deploys/serve.py on hosts with a GPU that only pretend: what each runtime's role sends, and when it sends nothing."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.facts.node import parse_node
from rackserve.fleet import plan_fleet
from rackserve.planning.preflight import archive_origin, environment_of
from tests.roles.fakes import Answers, Run, converged, deploy, driven
from tests.roles.gpu_box import sent

NODE = """id=ubuntu
version=24.04
codename=noble
arch=x86_64
glibc=glibc 2.39
mem_kib=99999999
init=systemd
python=Python 3.12.3
pci=0x10de 0x26b9 0x030200"""
HELPERS = ["ca-certificates", "curl", "python3"]
ENVIRONMENT = ["packages.sh", "write", "uv.sh", "write", "environment.sh", "sh"]
CURRENT = ["activate.sh", "uv-cache.sh"]
# Asked before the release is current and the unit is written: what is in use stays as it is where it does not compile.
CHECKED = ["write", "compile-check.sh", *CURRENT, "write", "start.sh"]
ARCHIVE = ["packages.sh", "fetch.sh", "archive.sh", "rm", "activate.sh"]
# What it runs, the model, the user, a key or links for those that have them, files, and the start.
SENT = {
    "vllm": [*ENVIRONMENT, "python3", "useradd", "sh", *CHECKED],
    "sglang": [*ENVIRONMENT, "python3", "useradd", *CHECKED],
    "ollama": [*ARCHIVE, "fetch.sh", "useradd", "write", "sh", "start.sh"],
    "lmstudio": [*ARCHIVE, "fetch.sh", "useradd", "write", "start.sh"],
    "tensorrt-llm": ["packages.sh", "image.sh", "python3", "useradd", "write", "start.sh"],
}


def host(runtime: str) -> dict[str, Any]:
    service = {"name": "chat", "model": "qwen3-0.6b", "runtime": runtime, "max_model_len": 4096}
    return {"gpu_tag": "l40s", "lmstudio_accept_license": True, "services": [service], "_sudo": True}


def serve(monkeypatch: Any, runtime: str, answers: Answers) -> Run:
    run = deploy("serve.py", {"h1": host(runtime)}, {"h1": answers}, monkeypatch)
    assert run.failed == set()
    return run


def finished(runtime: str) -> Answers:
    (plan,) = plan_fleet([("@fake/h1", host(runtime))])
    node, catalog = parse_node(NODE.splitlines()), load_catalog()
    if runtime == "tensorrt-llm":
        return converged("h1", host(runtime), NODE, "", [])
    if runtime in ("ollama", "lmstudio"):
        archive = archive_origin(plan, catalog, node, runtime)
        return converged("h1", host(runtime), NODE, archive.name, [*HELPERS, *archive.packages])
    environment = environment_of(plan, catalog, node, runtime)
    return converged("h1", host(runtime), NODE, environment.release, [*HELPERS, *environment.packages])


@pytest.mark.parametrize("runtime", SENT)
def test_a_bare_host_is_sent_what_it_lacks_in_order(monkeypatch, runtime):
    run = serve(monkeypatch, runtime, driven("h1", host(runtime), NODE))
    assert [verb for verb, _ in groupby(sent(command)[0] for command in run.changes["h1"])] == SENT[runtime]


@pytest.mark.parametrize("runtime", SENT)
def test_a_host_that_is_as_planned_is_sent_nothing(monkeypatch, runtime):
    assert serve(monkeypatch, runtime, finished(runtime)).changes == {"h1": []}
