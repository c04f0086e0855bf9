"""Where a model could run with llama.cpp: the host's memory and the files that are known."""

from __future__ import annotations

from typing import Any

from rackserve.catalog.loader import load_catalog
from rackserve.catalog.shapes import shape_of
from rackserve.planning.fit import plan_hosts
from rackserve.planning.question import Question
from rackserve.planning.where import Placement, place
from rackserve.settings import load_hosts

CATALOG = load_catalog()


def placed(model: str, **host: Any) -> Placement:
    (plan,) = plan_hosts(load_hosts([("h1", host)]), CATALOG)
    return place(plan, CATALOG, Question(model, shape_of(CATALOG.models[model]), runtime="llama.cpp"))


def test_a_file_that_nobody_listed_is_warned_of_once():
    found = placed("qwen3-32b", gpu_tag="rtx-3060-12gb", memory_mib=65_536)
    assert found.best is not None
    assert sum("GGUF" in warning for warning in found.best.warnings) == 1


def test_the_hosts_own_numbers_are_asked_with():
    found = placed("qwen3-8b", gpu_tag="rtx-4090", gpu_count=2, memory_mib=65_536, memory_ceiling=0.6)
    assert found.best is not None
    asked = found.best.request
    assert (asked.ceiling, asked.host_ceiling, asked.host_mib, asked.host_gpus) == (0.6, 0.6, 65_536, 2)


def test_a_cpu_host_gets_as_many_slots_as_its_memory_holds():
    found = placed("qwen3-0.6b", gpu_tag="cpu", memory_mib=16_384)
    assert found.best is not None
    assert found.best.max_num_seqs > 2
    assert found.as_dict()["gpu_layers"] == 0
