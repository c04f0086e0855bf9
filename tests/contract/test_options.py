"""Every name in the option tables exists in the runtime itself, spelled in full."""

from __future__ import annotations

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.catalog.options import reaches, release
from tests.contract.harness import MARKS, SGLANG, VLLM, check_vllm, options
from tests.contract.models import model_folder

pytestmark = MARKS
CATALOG = load_catalog()
VERSIONS = [*(("vllm", version) for version in VLLM), *(("sglang", version) for version in SGLANG)]


def told(runtime: str, version: str, *kinds: str) -> set[str]:
    return {
        spelling.name
        for spellings in CATALOG.options[runtime].settings.values()
        for spelling in spellings
        if spelling.kind in kinds and reaches(spelling, release(version))
    }


@pytest.mark.parametrize(("runtime", "version"), VERSIONS)
def test_its_parser_knows_every_option_of_the_table(runtime, version):
    names = told(runtime, version, "value", "flag", "json")
    assert names - options(runtime, version) == set()
    assert len(names) > 20


def gone(runtime: str, version: str) -> set[str]:
    named = {
        spelling.name
        for spellings in CATALOG.options[runtime].settings.values()
        for spelling in spellings
        if spelling.name.startswith("--") and not reaches(spelling, release(version))
    }
    return named - told(runtime, version, "value", "flag", "json")


# The table has no option that the SGLang at hand has lost.
@pytest.mark.parametrize(("runtime", "version"), [entry for entry in VERSIONS if entry[0] == "vllm"])
def test_its_parser_does_not_know_what_the_table_says_is_gone(runtime, version):
    assert gone(runtime, version)
    # vLLM 0.33 made it again, as it did for all that can be switched off.
    assert gone(runtime, version) & options(runtime, version) <= {"--disable-log-requests"}


@pytest.mark.parametrize("version", VLLM)
def test_vllm_knows_every_variable_of_the_table(version, tmp_path):
    folder = model_folder(CATALOG.models["qwen3-0.6b"], "none", tmp_path)
    variables = [(name, "1") for name in sorted(told("vllm", version, "environment"))]
    assert len(variables) > 5
    assert check_vllm(["vllm", "serve", "m"], folder, version, variables) is None
