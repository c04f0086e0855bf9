"""The option tables against lists read off the runtimes' own sources, for every version in those lists.

vllm-options.json: source distributions of 37 releases and the parser of 0.33.0. sglang-options.json: wheels of 22
releases. llamacpp-options.json: --help of 0.5.0-dev and 0.7.0. ollama-options.json: envconfig/config.go and
api/types.go at three tags. They hold the names that the tables use, and the versions that have each.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.catalog.options import reaches, release

HERE = Path(__file__).parent
LISTS = {
    "vllm": "vllm-options.json",
    "sglang": "sglang-options.json",
    "llama.cpp": "llamacpp-options.json",
    "ollama": "ollama-options.json",
}
CATALOG = load_catalog()


def listed(runtime: str) -> dict[str, list[str]]:
    return json.loads((HERE / LISTS[runtime]).read_text())


CASES = [
    (runtime, version)
    for runtime in LISTS
    for version in sorted({version for versions in listed(runtime).values() for version in versions}, key=release)
]
# Variables of libraries that the runtimes stand on.
ELSEWHERE = {"HF_HUB_OFFLINE", "HF_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE"}
ELSEWHERE |= {"LLAMA_CACHE"}


@pytest.mark.parametrize(("runtime", "version"), CASES)
def test_every_name_exists_in_the_version_it_is_said_to(runtime, version):
    known = listed(runtime)
    told = {
        spelling.name
        for spellings in CATALOG.options[runtime].settings.values()
        for spelling in spellings
        if spelling.name and spelling.name not in ELSEWHERE and reaches(spelling, release(version))
    }
    assert {name for name in told if version not in known.get(name, [])} == set()
    assert len(told) > 20


@pytest.mark.parametrize(("runtime", "version"), CASES)
def test_no_setting_is_missing_where_one_of_its_names_exists(runtime, version):
    known = listed(runtime)
    late = {
        setting
        for setting, spellings in CATALOG.options[runtime].settings.items()
        if not any(reaches(spelling, release(version)) for spelling in spellings)
        and any(version in known.get(spelling.name, []) for spelling in spellings)
    }
    assert late == set()


@pytest.mark.parametrize("runtime", LISTS)
def test_the_table_ends_where_the_list_does(runtime):
    table, versions = CATALOG.options[runtime], [version for name, version in CASES if name == runtime]
    assert release(versions[0]) == release(table.oldest)
    assert release(versions[-1]) == release(table.newest)
