"""What the inventory says of a host against what the host is."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.domain.node import Node
from rackserve.planning.fit import plan_hosts
from rackserve.planning.preflight import host_problems, llamacpp_origin
from rackserve.runtimes.llamacpp_origins import FromPackage
from rackserve.settings import load_hosts
from tests.planning.making import SMALL

NODE = Node(
    distribution="debian",
    codename="forky",
    architecture="x86_64",
    glibc="2.43",
    memory_mib=4096,
    systemd=True,
    cpu_flags=frozenset({"sse2", "avx2"}),
    pci_gpus=(),
)
SERVICES = [{"name": "a", "model": SMALL}]
H100, MI300X, ASPEED = "10de:2331", "1002:74a1", "1a03:2000"


def problems(node: Node | None, **data: Any) -> list[str]:
    data = {"gpu_tag": "cpu", "memory_mib": 4096, "services": SERVICES} | data
    (plan,) = plan_hosts(load_hosts([("h1", data)]), load_catalog())
    return host_problems(plan, load_catalog(), node)


def node(**changes: Any) -> Node:
    return NODE.model_copy(update=changes)


def gpu_problems(tag: str, *pci_gpus: str, **data: Any) -> list[str]:
    return problems(node(pci_gpus=pci_gpus), gpu_tag=tag, services=[], **data)


def test_a_host_that_is_what_it_says_has_no_problems():
    assert problems(NODE) == []


def test_a_host_that_does_not_answer_is_refused():
    assert len(problems(None)) == 1


# the tag and the PCI bus


@pytest.mark.parametrize(
    ("tag", "pci_gpus"),
    [
        ("cpu", ()),
        ("cpu", (ASPEED,)),
        ("h100-pcie", (H100,)),
        ("h100-pcie", (ASPEED, H100, H100)),
        ("mi300x", (MI300X,)),
        ("mi300x", ("1002:74b5",)),
    ],
)
def test_the_tag_is_right(tag, pci_gpus):
    assert gpu_problems(tag, *pci_gpus) == []


@pytest.mark.parametrize(
    ("tag", "pci_gpus", "told"),
    [
        ("cpu", (H100,), (H100, "h100-pcie")),
        ("cpu", (ASPEED, MI300X), (MI300X, "mi300x")),
        ("h100-pcie", (), ("no GPU", H100)),
        ("h100-pcie", (ASPEED,), (ASPEED, H100)),
        ("h100-pcie", (MI300X,), (H100, MI300X, "mi300x")),
        ("mi300x", (H100,), (MI300X, H100, "h100-pcie")),
        ("l40s", ("10de:2684",), ("rtx-4090",)),
    ],
)
def test_the_tag_is_wrong_and_both_sides_are_told(tag, pci_gpus, told):
    (problem,) = gpu_problems(tag, *pci_gpus)
    assert tag in problem
    assert all(word in problem for word in told)


@pytest.mark.parametrize("pci_gpus", [(), (MI300X,)])
def test_a_simulated_gpu_is_not_looked_for(pci_gpus):
    assert gpu_problems("h100-pcie", *pci_gpus, gpu_simulated=True) == []


# memory and system


@pytest.mark.parametrize(("stated", "there"), [(4096, 4096), (4096, 3900), (2048, 4096)])
def test_memory_that_is_stated_may_lack_what_firmware_takes(stated, there):
    assert problems(node(memory_mib=there), memory_mib=stated, services=[]) == []


def test_memory_that_is_not_there_is_told_with_both_sizes():
    (problem,) = problems(node(memory_mib=2048))
    assert ("4096" in problem, "2048" in problem, "memory_mib" in problem) == (True, True, True)


def test_a_host_without_systemd_is_refused():
    (problem,) = problems(node(systemd=False))
    assert "systemd" in problem


def test_every_problem_of_a_host_is_told_at_once():
    assert len(problems(node(systemd=False, memory_mib=1, pci_gpus=(H100,), codename="buster", glibc="2.28"))) == 4


# the runtime


def test_a_c_library_older_than_the_archives_is_told_with_both_versions():
    (problem,) = problems(node(codename="bullseye", glibc="2.31"))
    assert ("2.31" in problem, "2.34" in problem, "build" in problem) == (True, True, True)


def test_versions_are_compared_as_numbers():
    assert problems(node(codename="bookworm", glibc="2.100")) == []
    assert problems(node(codename="bookworm", glibc="2.4")) != []


def test_a_build_needs_avx2_on_x86_and_only_there():
    assert problems(node(cpu_flags=frozenset({"sse2"})), llamacpp_install="package") == []
    (problem,) = problems(node(cpu_flags=frozenset({"sse2"})), llamacpp_install="build")
    assert "AVX2" in problem
    assert problems(node(cpu_flags=frozenset(), architecture="aarch64"), llamacpp_install="build") == []


def test_a_cache_in_fp8_needs_avx512_in_ram():
    small = {"name": "a", "model": "qwen3-0.6b", "runtime": "vllm", "max_model_len": 1024, "kv_cache_dtype": "fp8"}
    host = node(codename="bookworm", version="12", glibc="2.36", memory_mib=16384)
    able = host.model_copy(update={"cpu_flags": frozenset({"avx2", "avx512f"})})

    def told(found: Node, **service: Any) -> list[str]:
        services = [small | service]
        return [each for each in problems(found, services=services, memory_mib=16384, os="debian-12") if "AVX" in each]

    assert told(host) == ["a: kv_cache_dtype fp8 needs AVX-512, which this CPU does not have: leave it out"]
    assert told(able) == told(host, kv_cache_dtype="auto") == []


def test_a_host_without_services_needs_no_runtime():
    strange = node(distribution="void", codename="", architecture="riscv64", glibc="0")
    assert problems(strange, services=[]) == []
    assert len(problems(strange)) == 1


@pytest.mark.parametrize("glibc", ["0", "2.36"])
def test_an_unknown_c_library_gives_a_sentence_and_no_exception(glibc):
    # An exception here would end the run for all hosts.
    assert isinstance(problems(node(codename="bookworm", glibc=glibc)), list)


def test_the_origin_of_an_unknown_host_is_a_sentence():
    (plan,) = plan_hosts(load_hosts([("h1", {"gpu_tag": "cpu"})]), load_catalog())
    assert isinstance(llamacpp_origin(plan, load_catalog(), None), str)
    assert isinstance(llamacpp_origin(plan, load_catalog(), NODE), FromPackage)
