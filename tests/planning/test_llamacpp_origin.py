"""What a host's plan makes of llama-server's origin, and the repositories that its packages are in."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.domain.host import Host
from rackserve.domain.node import Node
from rackserve.planning.driver_recipes import named_repositories
from rackserve.planning.fit import plan_hosts
from rackserve.planning.preflight import llamacpp_origin
from rackserve.runtimes.llamacpp_origins import FromArchive, FromSource, Origin
from rackserve.settings import load_hosts
from tests.planning.making import SMALL

NOBLE = Node(
    distribution="ubuntu",
    codename="noble",
    version="24.04",
    architecture="x86_64",
    glibc="2.39",
    memory_mib=65536,
    systemd=True,
    cpu_flags=frozenset({"avx2"}),
    pci_gpus=(),
)


def origin_of(tag: str, **data: Any) -> Origin | str:
    service = {"name": "a", "model": SMALL, "runtime": "llama.cpp"}
    host = {"gpu_tag": tag, "os": "ubuntu-24.04", "kernel": "6.17", "memory_mib": 65536, "services": [service]} | data
    (plan,) = plan_hosts(load_hosts([("h1", host)]), load_catalog())
    assert plan.errors == ()
    return llamacpp_origin(plan, load_catalog(), NOBLE)


@pytest.mark.parametrize(
    ("tag", "kind", "name"),
    [
        ("rtx-3090", FromSource, "-noble-x86_64-cuda13.0-8.6"),
        ("h100-pcie", FromSource, "-noble-x86_64-cuda13.0-9.0"),
        ("v100-32gb-sxm", FromSource, "-noble-x86_64-cuda12.9-7.0"),
        ("rx-7900-xtx", FromSource, "-noble-x86_64-rocm10.0-gfx1100"),
        ("arc-b580", FromArchive, "llama.cpp-vulkan-632c4e98feba"),
        ("cpu", FromArchive, "llama.cpp-f6d25dde8f51"),
    ],
)
def test_the_stack_decides_what_llama_server_computes_with(tag, kind, name):
    found = origin_of(tag)
    assert isinstance(found, kind), found
    assert found.release.endswith(name)


def test_a_pretended_gpu_gets_the_program_for_the_cpu():
    assert origin_of("rtx-3090", gpu_simulated=True) == origin_of("cpu")


def host(**data: Any) -> Host:
    (made,) = load_hosts([("h1", {"gpu_tag": "cpu", "memory_mib": 4096} | data)])
    return made


def test_repositories_are_those_of_the_system_and_the_cpu():
    (x86,) = named_repositories(("nvidia-cuda",), "ubuntu-24.04", "x86_64", host(), load_catalog())
    (arm,) = named_repositories(("nvidia-cuda",), "ubuntu-24.04", "aarch64", host(), load_catalog())
    assert (x86.url.split("/")[-3:-1], arm.url.split("/")[-3:-1]) == (["ubuntu2404", "x86_64"], ["ubuntu2404", "sbsa"])
    assert named_repositories(("nvidia-cuda",), "debian-12", "aarch64", host(), load_catalog()) == ()
    assert named_repositories((), "ubuntu-24.04", "x86_64", host(), load_catalog()) == ()


def test_a_mirror_stands_in_for_a_repository():
    mirrored = host(package_mirrors={"rocm": "http://mirror.example/rocm"})
    (found,) = named_repositories(("rocm",), "ubuntu-24.04", "x86_64", mirrored, load_catalog())
    assert found.url == "http://mirror.example/rocm"
    assert found.fingerprints == ("D0F004A0025A1145C7807FCD0701EAC4D5E02107",)
