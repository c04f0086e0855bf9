"""Every command line that is rendered for vLLM and SGLang is one that they take: parsed, and made a configuration of.

A checkpoint's config.json is what its repository would hold, in the planned format.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import GpuServicePlan
from rackserve.rollout.inventory import read_inventory
from rackserve.runtimes.endpoint import checkpoint_format
from rackserve.settings import load_hosts
from tests.contract.harness import MARKS, SGLANG, VLLM, check_sglang, check_vllm
from tests.contract.models import model_folder

pytestmark = MARKS
CATALOG = load_catalog()
EXAMPLE = Path(__file__).resolve().parents[2] / "inventories" / "example.py"
VERSIONS = [*(("vllm", version) for version in VLLM), *(("sglang", version) for version in SGLANG)]
# Cards that differ in what is planned on them: formats, memory, defaults of the batch.
CARDS = (("h100-sxm-80gb", 8), ("b200", 8), ("a100-80gb-sxm", 4), ("l40s", 2), ("t4", 1), ("cpu", 1))
# Each setting that reaches a command line, alone; `None` in each: as planned where nobody says anything.
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"kv_cache_dtype": "fp8"},
    {"kv_cache_dtype": "bf16"},
    {"quantization": "fp8"},
    {"quantization": "awq"},
    {"quantization": "none"},
    {"max_model_len": 4096, "shared_prompts": False},
    {"max_model_len": 8192, "concurrency": 3, "avg_tokens": 1000},
    {"max_output_tokens": 256, "temperature": 0.7, "top_p": 0.9},
    {"repetition_penalty": None},
    {"tensor_parallel": 1, "pipeline_parallel": 2},
    {"structured_output": "xgrammar"},
    {"listen": "10.0.0.5", "allow_from": ["10.0.0.0/8"], "port": 9000},
)


MODELS = tuple(model.name for model in CATALOG.models.values() if model.checkpoints)
Case = tuple[tuple[str, int], str, dict[str, Any]]


def planned(runtime: str, version: str, case: Case) -> tuple[GpuServicePlan, ...]:
    """The service of a case: a model on cards with a setting. None where it does not fit or is refused."""
    (tag, count), model, setting = case
    service = {"name": "chat", "model": model, "runtime": runtime, "runtime_version": version, **setting}
    host: dict[str, Any] = {"gpu_tag": tag, "services": [service]}
    if tag == "cpu":
        host["memory_mib"] = 262144
    else:
        host["gpu_count"] = count
        service["gpus"] = count
    try:
        (plan,) = plan_hosts(load_hosts([("h1", host)]), CATALOG)
    except InputError:
        return ()
    return plan.gpu_services


def everything(runtime: str, version: str) -> Iterator[GpuServicePlan]:
    """All that fits: the models on the cards with each of the settings."""
    for case in itertools.product(CARDS, MODELS, SETTINGS):
        yield from planned(runtime, version, case)


def each_alone(runtime: str, version: str) -> Iterator[GpuServicePlan]:
    """Each model on each of the cards as planned by default, and each setting on each of the cards with one model.

    What a model is told depends on its family and the cards, and what a setting adds on the setting and the cards.
    """
    for card, model in itertools.product(CARDS, MODELS):
        yield from planned(runtime, version, (card, model, {}))
    for card, setting in itertools.product(CARDS, SETTINGS[1:]):
        fitting = (planned(runtime, version, (card, model, setting)) for model in MODELS)
        yield from next((plans for plans in fitting if plans), ())


def refused(plans: Iterator[GpuServicePlan], version: str, folder: Path) -> tuple[dict[str, str], int]:
    """What the runtime does not take, and how many command lines there were."""
    found, count = {}, 0
    for plan in plans:
        check = check_vllm if plan.runtime_name == "vllm" else check_sglang
        form = checkpoint_format(plan.sizing)
        where = folder / f"{plan.model.name}-{form}"
        target = where if where.exists() else model_folder(plan.model, form, where)
        error = check(plan.launch.argv, target, version, plan.launch.environment)
        count += 1
        if error is not None:
            found[" ".join(plan.launch.argv[2:])] = error
    return found, count


@pytest.mark.parametrize(("runtime", "version"), VERSIONS)
def test_it_takes_each_model_and_each_setting(runtime, version, tmp_path):
    errors, count = refused(each_alone(runtime, version), version, tmp_path)
    assert count > 100
    assert errors == {}


@pytest.mark.full
@pytest.mark.parametrize(("runtime", "version"), VERSIONS)
def test_it_takes_every_command_line_that_is_planned(runtime, version, tmp_path):
    errors, count = refused(everything(runtime, version), version, tmp_path)
    assert count > 300
    assert errors == {}


def test_they_take_every_command_line_of_the_example_fleet(tmp_path):
    hosts = [(host.name, host.data) for host in read_inventory(str(EXAMPLE))]
    plans = [service for plan in plan_hosts(load_hosts(hosts), CATALOG) for service in plan.gpu_services]
    known = [plan for plan in plans if (plan.runtime_name, plan.runtime.version) in VERSIONS]
    assert len(known) > 30
    for version in {plan.runtime.version for plan in known}:
        mine = (plan for plan in known if plan.runtime.version == version)
        assert refused(mine, version, tmp_path)[0] == {}
