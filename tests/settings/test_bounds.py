"""Every number that a key of an inventory is bound by: the last value that is taken, and the first that is not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from rackserve.domain.host import Host, LlamaCppSettings
from rackserve.domain.policy import HIGHEST_CEILING, MOST_CEILING
from rackserve.domain.service import Service
from rackserve.settings import load_hosts
from tests.settings.test_settings import CHAT, load_one, problem_of, service_problem

# key: least, one step below it, most, one step above it; None where there is no such bound.
BOUNDS: dict[type[BaseModel], dict[str, tuple[Any, Any, Any, Any]]] = {
    Service: {
        "max_model_len": (256, 255, None, None),
        "concurrency": (1, 0, 4096, 4097),
        "avg_tokens": (1, 0, None, None),
        "threads": (1, 0, 1024, 1025),
        "gpu_share": (0.001, 0, 0.95, 0.951),
        "tensor_parallel": (1, 0, 64, 65),
        "pipeline_parallel": (1, 0, 64, 65),
        "max_output_tokens": (1, 0, None, None),
        "temperature": (0.1, 0.09, 2, 2.01),
        "top_p": (0.01, 0, 1, 1.01),
        "repetition_penalty": (1, 0.99, 2, 2.01),
        "port": (1024, 1023, 65535, 65536),
    },
    Host: {
        "gpu_count": (1, 0, 64, 65),
        "reboot_timeout": (60, 59, 7200, 7201),
        "memory_mib": (64, 63, 67_108_864, 67_108_865),
        "memory_ceiling": (0.01, 0, 0.95, 0.951),
        "apt_lock_timeout": (0, -1, 7200, 7201),
        "start_timeout": (10, 9, 7200, 7201),
    },
    LlamaCppSettings: {"build_jobs": (1, 0, 512, 513)},
}
_PREFIX = {Service: "", Host: "", LlamaCppSettings: "llamacpp_"}
EACH = [
    pytest.param(model, f"{_PREFIX[model]}{key}", taken, refused, id=f"{key}-{taken}")
    for model, keys in BOUNDS.items()
    for key, (least, below, most, above) in keys.items()
    for taken, refused in ((least, below), (most, above))
    if taken is not None
]


def bounded(model: type[BaseModel]) -> set[str]:
    """Keys of a model whose numbers are bound."""
    names = {"ge", "gt", "le", "lt"}
    return {key for key, field in model.model_fields.items() if any(names & set(dir(part)) for part in field.metadata)}


@pytest.mark.parametrize("model", list(BOUNDS), ids=lambda model: model.__name__)
def test_every_bound_is_in_the_table(model):
    assert bounded(model) == set(BOUNDS[model])


@pytest.mark.parametrize(("model", "key", "taken", "refused"), EACH)
def test_the_last_value_is_taken_and_the_next_is_not(model, key, taken, refused):
    if model is Service:
        assert getattr(load_one(services=[CHAT | {key: taken}]).services[0], key) == taken
        assert service_problem(**{key: refused}).key == key
    else:
        assert load_one(services=[], **{key: taken}).name == "h1"
        assert problem_of(services=[], **{key: refused}).key == key


@pytest.mark.parametrize(("taken", "refused"), [(64, 65), (1, 0), ([63], [64]), ([0], [-1])])
def test_gpus_are_a_number_to_64_or_numbers_from_0_to_63(taken, refused):
    found = load_one(services=[CHAT | {"gpus": taken}]).services[0].gpus
    assert found == (taken if isinstance(taken, int) else tuple(taken))
    assert service_problem(gpus=refused).key == "gpus"


def test_a_ceiling_that_a_refusal_offers_can_be_stated():
    assert HIGHEST_CEILING <= MOST_CEILING
    assert load_one(memory_ceiling=HIGHEST_CEILING).memory_ceiling == 0.92


def test_1_2_times_the_average_may_be_the_whole_length_and_no_more():
    fits = {"max_model_len": 1200, "avg_tokens": 1000}
    assert load_hosts([("h1", {"gpu_tag": "cpu", "memory_mib": 4096, "services": [CHAT | fits]})])[0].services
    assert service_problem(**(fits | {"max_model_len": 1199})).message == "1000 x 1.2 is more than max_model_len 1199"


def test_a_key_is_taken_for_a_mistyped_one_from_85_percent_of_its_letters_on():
    # 2 x common letters / all letters: 6 of 7 and 7 is 86 %, 5 of 6 and 6 is 83 %.
    assert problem_of(gpu_tga="x").hint == "did you mean gpu_tag?"
    assert load_one(gpu_xyz="x") == load_one()
