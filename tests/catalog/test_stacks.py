"""The stack facts that we ship, and what an operator's files may add to them."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.version import Version

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError
from rackserve.domain.stack import StackFacts

FACTS = load_catalog().stacks
SECTIONS = [name for name in StackFacts.model_fields if name != "stack_policy"]
ENTRIES = [(section, name, entry) for section in SECTIONS for name, entry in getattr(FACTS, section).items()]
RUNTIMES = sorted({entry.runtime for entry in FACTS.runtimes.values()})


@pytest.mark.parametrize(
    ("section", "name", "entry"), ENTRIES, ids=[f"{section}.{name}" for section, name, _ in ENTRIES]
)
def test_every_fact_says_where_it_is_from_and_of_when(section, name, entry):
    assert len(entry.source) > 10, (section, name)
    assert re.fullmatch(r"20\d\d-[01]\d-[0-3]\d", entry.date)


def test_the_policy_says_where_it_is_from():
    assert FACTS.stack_policy.source
    assert FACTS.stack_policy.date


@pytest.mark.parametrize("section", SECTIONS)
def test_no_section_is_empty(section):
    assert getattr(FACTS, section)


def test_the_systems_that_hosts_run_are_there():
    assert set(FACTS.systems) >= {
        *("ubuntu-22.04", "ubuntu-24.04", "ubuntu-26.04", "debian-12", "debian-13", "debian-forky"),
        *("rhel-9", "rhel-10", "rocky-9", "rocky-10", "macos-15", "macos-26"),
    }


def test_the_runtimes_are_those_that_a_service_can_name():
    assert set(RUNTIMES) == {"vllm", "sglang", "tensorrt-llm", "llama.cpp", "ollama", "lmstudio"}


def test_the_driver_branches_are_there():
    assert set(FACTS.nvidia_drivers) >= {"570", "580", "590", "595", "610", "615"}
    assert FACTS.stack_policy.nvidia_drivers[0] == "580"


def test_the_policy_chooses_among_drivers_that_are_there_and_supported():
    assert all(FACTS.nvidia_drivers[branch].supported for branch in FACTS.stack_policy.nvidia_drivers)
    assert all(series in FACTS.amd_drivers for series in FACTS.stack_policy.amd_drivers)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_versions_of_a_runtime_do_not_overlap_and_pick_one_of_their_own(runtime):
    ranges = sorted(
        (entry for entry in FACTS.runtimes.values() if entry.runtime == runtime), key=lambda e: Version(e.first)
    )
    for entry in ranges:
        assert Version(entry.first) <= Version(entry.pick) < Version(entry.before), entry.id
        assert Version(entry.pick).is_prerelease == entry.prerelease, entry.id
    for lower, upper in pairwise(ranges):
        assert Version(Version(upper.first).base_version) >= Version(lower.before), upper.id


def test_vllm_has_no_gap_from_0_8_5_to_0_33():
    ranges = sorted(
        (entry for entry in FACTS.runtimes.values() if entry.runtime == "vllm"), key=lambda e: Version(e.first)
    )
    assert ranges[0].first == "0.8.5"
    assert all(Version(lower.before) == Version(upper.first) for lower, upper in pairwise(ranges))
    assert Version(ranges[-1].before) == Version("0.34")


def test_what_builds_refer_to_is_there():
    for entry in FACTS.runtimes.values():
        for build in entry.builds:
            assert build.cuda is None or build.cuda.partition(".")[0] in FACTS.cuda, entry.id
            assert set(build.systems) <= set(FACTS.systems), entry.id
            assert build.host_rocm != "needed" or build.rocm in FACTS.rocm, entry.id
            assert build.install != "wheel" or entry.python is not None, entry.id
            assert (build.backend == "cuda") <= (build.vendor == "nvidia"), entry.id


def test_suites_of_amds_driver_are_those_of_the_systems():
    suites = {entry.amdgpu_suite for entry in FACTS.systems.values()} - {""}
    assert {suite for driver in FACTS.amd_drivers.values() for suite in driver.suites} == suites


OWN = """
[systems."alma-9"]
name = "AlmaLinux 9"
kernel = "5.14"
glibc = "2.34"
nvidia_repo = "rhel9"
source = "test"
date = "2026-11-24"

[nvidia_drivers.580]
kind = "ltsb"
version = "580.200.01"
supported = true
capability_min = "5.0"
kernel_modules = ["open", "proprietary"]
source = "test"
date = "2026-11-24"

[runtimes."vllm-0.34"]
runtime = "vllm"
first = "0.34.0"
before = "0.35"
pick = "0.34.0"
builds = [{ vendor = "nvidia", install = "image", backend = "cuda", cuda = "13.2" }]
source = "test"
date = "2026-11-24"
"""


def write(folder: Path, text: str) -> str:
    (folder / "own.toml").write_text(text)
    return str(folder / "own.toml")


def test_a_file_of_ones_own_adds_and_replaces_entries(tmp_path):
    facts = load_catalog([write(tmp_path, OWN)]).stacks
    assert facts.systems["alma-9"].nvidia_repo == "rhel9"
    assert facts.nvidia_drivers["580"].version == "580.200.01"
    assert facts.runtimes["vllm-0.34"].builds[0].container_toolkit
    assert set(facts.systems) > set(FACTS.systems)
    assert load_catalog().stacks == FACTS


def test_the_policy_can_be_replaced(tmp_path):
    facts = load_catalog([write(tmp_path, '[stack_policy]\nnvidia_drivers = ["595"]\n')]).stacks
    assert facts.stack_policy.nvidia_drivers == ("595",)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (OWN.replace('kernel = "5.14"', 'kernel = "new"'), "systems.alma-9.kernel"),
        (OWN.replace('[systems."alma-9"]', '[systems."Alma 9"]'), "systems.Alma 9.id"),
        (OWN.replace('first = "0.34.0"', 'first = "latest"'), "runtimes.vllm-0.34.first"),
        (OWN.replace('"image", backend', '"floppy", backend'), "runtimes.vllm-0.34.builds.0.install"),
        (OWN.replace("[nvidia_drivers.580]", "[nvidia_drivers.main]"), "nvidia_drivers.main.branch"),
        (OWN.replace('before = "0.35"', 'before = "0.35"\npython = "3.9"\npython_min = "3.10"'), "runtimes.vllm-0.34"),
        ("[stack_policy]\nfavourite = 1\n", "stack_policy.favourite"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_key(tmp_path, text, key):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_catalog([path])
    assert [(problem.where, problem.key) for problem in caught.value.problems] == [(path, key)]
