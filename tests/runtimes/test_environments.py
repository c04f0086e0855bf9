"""Where Python runtimes come from on which host, with which interpreter, and what is said where they cannot be had."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.catalog.loader import Catalog, load_catalog
from rackserve.domain.node import Node
from rackserve.runtimes.environments import FromRequirements, environment_origin

CATALOG = load_catalog()
BOOKWORM = {"distribution": "debian", "codename": "bookworm", "version": "12", "glibc": "2.36", "python": "3.11"}
TRIXIE = {"distribution": "debian", "codename": "trixie", "version": "13", "glibc": "2.41", "python": "3.13"}
FORKY = {"distribution": "debian", "codename": "forky", "version": "", "glibc": "2.43", "python": "3.14"}
JAMMY = {"distribution": "ubuntu", "codename": "jammy", "version": "22.04", "glibc": "2.35", "python": "3.10"}
NOBLE = {"distribution": "ubuntu", "codename": "noble", "version": "24.04", "glibc": "2.39", "python": "3.12"}
EL9 = {"distribution": "rocky", "codename": "", "version": "9.6", "glibc": "2.34", "python": "3.9"}
EL10 = {"distribution": "rhel", "codename": "", "version": "10.1", "glibc": "2.39", "python": "3.12"}
HASH = f"--hash=sha256:{'a' * 64}"
VLLM = ("vllm", "0.33.0", "cuda")
SGLANG = ("sglang", "0.5.23", "cuda")
VOLTA = ("vllm", "0.19.1", "cuda")
ROCM = ("vllm", "0.33.0", "rocm")


def node(**facts: Any) -> Node:
    plain = {"architecture": "x86_64", "memory_mib": 4096, "systemd": True, "cpu_flags": frozenset(), "pci_gpus": ()}
    return Node(**(plain | facts))


def found(runtime: tuple[str, str, Any], host: dict[str, Any]) -> FromRequirements:
    made = environment_origin(*runtime, CATALOG, node(**host))
    assert isinstance(made, FromRequirements), made
    return made


def refusal(runtime: tuple[str, str, Any], host: dict[str, Any]) -> str:
    said = environment_origin(*runtime, CATALOG, node(**host))
    assert isinstance(said, str)
    return said


# the interpreter


@pytest.mark.parametrize(
    ("runtime", "host", "python", "program"),
    [
        (VLLM, BOOKWORM, "3.11", "/usr/bin/python3"),
        (VLLM, TRIXIE, "3.13", "/usr/bin/python3"),
        (VLLM, FORKY, "3.14", "/usr/bin/python3"),
        (VLLM, NOBLE, "3.12", "/usr/bin/python3"),
        (VLLM, JAMMY, "3.12", None),
        (VLLM, EL9, "3.12", "/usr/bin/python3.12"),
        (VLLM, EL10, "3.12", "/usr/bin/python3"),
        (VOLTA, TRIXIE, "3.13", "/usr/bin/python3"),
        (VOLTA, FORKY, "3.12", None),
        (SGLANG, BOOKWORM, "3.11", "/usr/bin/python3"),
        (SGLANG, TRIXIE, "3.12", None),
        (SGLANG, EL9, "3.12", "/usr/bin/python3.12"),
    ],
)
def test_the_hosts_own_python_then_the_distributions_other_one_then_one_of_uvs(runtime, host, python, program):
    origin = found(runtime, host)
    assert (origin.python, origin.program) == (python, program)
    assert origin.release.endswith(f"-py{python}")


@pytest.mark.parametrize(("host", "python"), [(BOOKWORM, "3.11"), (TRIXIE, "3.13"), (EL10, "3.12")])
def test_a_host_without_python_gets_its_distributions(host, python):
    assert found(VLLM, host | {"python": ""}).python == python


def test_what_the_host_has_counts_more_than_what_its_distribution_should_have():
    assert found(VLLM, FORKY | {"python": "3.13"}).python == "3.13"
    assert found(VLLM, FORKY | {"python": "3.15"}).program is None


def test_a_distribution_that_nobody_knows_is_served_with_what_it_has():
    origin = found(VLLM, {"distribution": "ol", "codename": "", "version": "9.4", "glibc": "2.34", "python": "3.12"})
    assert (origin.python, origin.program) == ("3.12", "/usr/bin/python3")


# the packages


def test_triton_finds_a_compiler_and_the_headers_of_the_interpreter():
    assert {"gcc", "python3-dev", "python3-venv"} <= set(found(VLLM, BOOKWORM).packages)
    assert {"gcc", "python3.12", "python3.12-devel"} <= set(found(VLLM, EL9).packages)
    assert {"gcc", "python3-devel"} <= set(found(VLLM, EL10).packages)


def test_a_python_of_uvs_own_brings_its_headers():
    packages = set(found(SGLANG, TRIXIE).packages)
    assert "python3-dev" not in packages
    assert {"gcc", "python3-venv"} <= packages


# the host's compiler


def test_nvcc_is_given_a_gcc_that_it_knows_and_its_packages():
    origin = found(VLLM, FORKY)
    assert (origin.nvcc, origin.gcc) == ("13.0", "15")
    assert {"g++", "g++-15"} <= set(origin.packages)


@pytest.mark.parametrize("host", [BOOKWORM, TRIXIE, JAMMY, NOBLE, EL9, EL10])
def test_a_gcc_that_nvcc_knows_is_taken_as_it_is(host):
    origin = found(VLLM, host)
    assert (origin.nvcc, origin.gcc) == ("13.0", "")
    assert not [name for name in origin.packages if name.startswith("g++-")]


def test_a_system_that_gets_a_gcc_that_nvcc_does_not_know_gets_another_release():
    assert found(SGLANG, TRIXIE).python == found(SGLANG, FORKY).python == "3.12"
    assert found(SGLANG, TRIXIE).release != found(SGLANG, FORKY).release


def test_wheels_without_nvcc_need_no_older_gcc():
    origin = found(VOLTA, FORKY)
    assert (origin.nvcc, origin.gcc) == ("", "")


def test_every_system_with_a_python_has_a_gcc_and_every_nvcc_of_ours_is_known():
    assert set(CATALOG.gccs) == set(CATALOG.pythons)
    assert {release for entry in CATALOG.requirements.values() for release in entry.nvcc.values()} <= set(CATALOG.nvcc)


@pytest.mark.parametrize(("newest", "gcc"), [(16, ""), (15, "15"), (14, "14")])
def test_the_newest_gcc_that_nvcc_knows_is_the_last_that_it_is_given(newest, gcc):
    made = environment_origin(*VLLM, knowing(newest), node(**FORKY))
    assert isinstance(made, FromRequirements)
    assert made.gcc == gcc


def test_a_system_without_a_gcc_that_nvcc_knows_is_told_both():
    said = environment_origin(*VLLM, knowing(13), node(**FORKY))
    assert isinstance(said, str)
    assert "knows gcc up to 13; debian forky on x86_64 has 16 and none that is older" in said


def knowing(newest: int) -> Catalog:
    """Our catalogue with an nvcc that knows gcc up to this release."""
    nvcc = CATALOG.nvcc["13.0"].model_copy(update={"gcc": newest})
    return CATALOG.model_copy(update={"nvcc": {"13.0": nvcc}})


# the plan


@pytest.mark.parametrize(
    ("runtime", "family"), [(VLLM, "13.0"), (SGLANG, "13.0"), (VOLTA, "12.8")], ids=["vllm", "sglang", "volta"]
)
def test_what_is_pinned_and_checked_is_the_catalogues(runtime, family):
    origin = found(runtime, BOOKWORM)
    assert (origin.runtime, origin.version, origin.backend) == runtime
    assert origin.family == family
    assert f"\n{runtime[0]}=={runtime[1]} " in origin.text
    assert origin.installed_gib >= 10


def test_an_architecture_that_has_torch_for_the_cpu_only_is_refused():
    said = refusal(VOLTA, BOOKWORM | {"architecture": "aarch64"})
    assert "the pinned requirements of vllm 0.19.1 for cuda are for x86_64, not for debian bookworm on aarch64" in said


def test_both_architectures_have_the_same_requirements():
    assert found(VLLM, BOOKWORM | {"architecture": "aarch64"}).release == found(VLLM, BOOKWORM).release


def test_each_runtime_version_and_interpreter_is_another_release():
    every = [found(runtime, host).release for runtime in (VLLM, SGLANG, VOLTA) for host in (BOOKWORM, TRIXIE, NOBLE)]
    # SGLang gets Python 3.12 on two of them.
    assert len(set(every)) == len(every) - 1


def test_a_plan_says_nothing_of_thousands_of_hashes():
    assert len(repr(found(VLLM, BOOKWORM))) < 2000


# what is said


def test_what_is_not_pinned_is_told_with_what_would_work():
    said = refusal(("vllm", "0.31.0", "rocm"), NOBLE)
    assert "no pinned requirements of vllm 0.31.0 for rocm in the catalogue, which has 0.33.0 for cuda" in said
    assert 'add [requirements."vllm-0.31.0-rocm"] to a file named by `catalog`' in said
    assert "uv pip compile --generate-hashes" in said


def test_a_runtime_without_any_pins_is_told_so():
    assert "tensorrt-llm 1.2.1 for cuda in the catalogue: add" in refusal(("tensorrt-llm", "1.2.1", "cuda"), NOBLE)


def test_a_host_that_is_too_old_is_told_what_the_wheels_need():
    said = refusal(VLLM, {"distribution": "debian", "codename": "bullseye", "version": "11", "glibc": "2.31"})
    assert "need glibc 2.34, debian bullseye on x86_64 has 2.31" in said


@pytest.mark.parametrize("host", [TRIXIE | {"architecture": "riscv64"}, {"distribution": "macos", "codename": ""}])
def test_a_cpu_without_wheels_is_named(host):
    said = refusal(VLLM, {"glibc": "0", "version": "26.1", "architecture": "arm64"} | host)
    assert "on x86_64, aarch64" in said
    assert host["distribution"] in said


def test_an_entry_for_some_cpus_says_which():
    entry = CATALOG.requirements["vllm-0.33.0-cuda"]
    only = entry.model_copy(update={"architectures": ("x86_64",)})
    catalog = CATALOG.model_copy(update={"requirements": {entry.id: only}})
    said = environment_origin(*VLLM, catalog, node(**BOOKWORM, architecture="aarch64"))
    assert isinstance(said, str)
    assert "are for x86_64, not for debian bookworm on aarch64" in said
