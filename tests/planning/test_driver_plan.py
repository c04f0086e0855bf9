"""Which repositories and packages a host's driver comes from: pure, for every tag under every system."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest

from rackserve.domain.gpu_state import GpuState
from rackserve.domain.host import Host
from rackserve.planning.driver_plan import DriverPlan
from rackserve.planning.kernel_packages import asked_for, kernel_suffix, of_the_driver, package_names
from rackserve.planning.node_driver import wired_limit_mib
from tests.planning.driver_pairs import CATALOG, CLASSES, PAIRS, PLANNED, REFUSED, node, outcome, planned


def state(system: str, kernel: str, **values: Any) -> GpuState:
    return GpuState.model_validate({"system": system, "architecture": "x86_64", "kernel": kernel} | values)


@pytest.mark.parametrize("system", ["ubuntu-24.04", "debian-12", "rocky-9", "debian-forky", "macos-15"])
def test_a_node_names_its_system_as_the_catalogue_does(system):
    assert node(system).system == system


def test_a_minor_release_belongs_to_its_major_one():
    assert node("rocky-9.4").system == "rocky-9"


def test_every_pair_is_in_a_class_and_is_planned_with_its_own_card():
    assert sorted(pair for pairs in CLASSES.values() for pair in pairs) == sorted(PAIRS)
    for tag, system in PAIRS:
        plan, gpu = outcome(tag, system), CATALOG.gpus[tag]
        if isinstance(plan, DriverPlan):
            assert (plan.gpu_tag, plan.gpu_ids, plan.vram_mib) == (tag, gpu.pci_ids, gpu.vram_mib)
        else:
            assert plan
            assert {(problem.host, bool(problem.message)) for problem in plan} == {("h1", True)}


@pytest.mark.parametrize(("tag", "system"), REFUSED, ids=str)
def test_only_the_solver_says_no(tag, system):
    # What it says yes to, the catalogue has packages for.
    assert not [problem for problem in outcome(tag, system) if problem.message.startswith("the catalogue has no")]


@pytest.mark.parametrize(("tag", "system"), PLANNED, ids=str)
def test_a_plan_names_whole_packages_that_are_no_rivals_of_each_other(tag, system):
    plan = planned(tag, system)
    assert bool(plan.modules) == (CATALOG.gpus[tag].vendor != "none" and not system.startswith("macos"))
    assert all("{" not in entry.url for entry in plan.repositories)
    for name in (*plan.packages, *plan.together, *plan.rivals, *plan.prerequisites, plan.dnf_module):
        assert set(name.replace("{release}", "").replace("{suffix}", "")) & set("{}") == set()
    # What has to be of one version never is what must not be there.
    assert not [name for name in plan.packages for rival in plan.rivals if fnmatch.fnmatchcase(name, rival)]


def test_a_built_module_has_its_compiler_and_headers_and_a_ready_one_has_not():
    debian, ubuntu = planned("l40s", "debian-12"), planned("l40s", "ubuntu-24.04")
    assert (debian.built, debian.signed_module) == (True, "")
    assert "dkms" in debian.prerequisites
    assert ubuntu.signed_module == "linux-modules-nvidia-580-server-open-{release}"
    assert (ubuntu.built, ubuntu.headers) == (False, ())


def test_a_distribution_moves_within_the_branch_and_a_vendor_is_held_to_the_version():
    assert planned("l40s", "ubuntu-24.04").version is None
    assert planned("l40s", "debian-12").version == CATALOG.stacks.nvidia_drivers["580"].version
    assert planned("l40s", "debian-12", driver_version="580.95.05").version == "580.95.05"


@pytest.mark.parametrize(
    ("tag", "system", "words"),
    [
        ("l40s", "debian-12", "nvidia 580.178.04 open, built on the host, for 2 x l40s"),
        ("v100-32gb-sxm", "ubuntu-24.04", "nvidia 580 proprietary, signed by the distribution, for 2 x v100-32gb-sxm"),
        ("mi300x", "rocky-9", "amdgpu 31.50, built on the host, for 2 x mi300x"),
        ("arc-b580", "ubuntu-24.04", "xe of the system on the kernel of linux-generic-hwe-24.04, for 2 x arc-b580"),
    ],
)
def test_a_plan_is_told_in_a_line(tag, system, words):
    assert planned(tag, system, gpu_count=2).summary == words


def test_old_cards_get_proprietary_modules():
    assert "nvidia-kernel-dkms" in planned("v100-32gb-sxm", "debian-12").packages
    assert "nvidia-kernel-open-dkms" in planned("b200", "debian-12").packages


@pytest.mark.parametrize(
    ("tag", "fabric", "nvlsm"), [("l40s", False, False), ("h100-sxm-80gb", True, False), ("b200", True, True)]
)
def test_boards_with_switches_get_what_runs_them_and_others_do_not(tag, fabric, nvlsm):
    plan = planned(tag, "debian-12")
    assert ("nvidia-fabricmanager" in plan.packages) == fabric == plan.fabric
    assert ("nvidia-fabricmanager.service" in plan.units) == fabric
    assert ("nvlsm" in plan.packages) == nvlsm


def test_dcgm_is_for_data_centre_cards_unless_stated():
    def has(plan: DriverPlan) -> bool:
        return any(name.startswith("datacenter-gpu-manager") for name in plan.packages)

    assert [has(planned(tag, "debian-12")) for tag in ("l40s", "rtx-4090")] == [True, False]
    assert [has(planned(tag, "debian-12", dcgm=tag == "rtx-4090")) for tag in ("l40s", "rtx-4090")] == [False, True]
    # Ubuntu's archive has the driver, but not this: NVIDIA's repository comes along for it alone.
    assert [entry.name for entry in planned("l40s", "ubuntu-24.04").repositories] == ["nvidia-cuda"]
    assert planned("l40s", "ubuntu-24.04", dcgm=False).repositories == ()
    # The same holds for NVLink's subnet manager.
    assert [entry.name for entry in planned("b200", "ubuntu-24.04", dcgm=False).repositories] == ["nvidia-cuda"]


def test_the_container_toolkit_comes_with_a_container_or_the_operators_own_engine():
    assert planned("l40s", "debian-12").toolkit_packages == ()
    in_image = planned("l40s", "debian-12", services=[{"name": "a", "model": "qwen3-8b", "runtime": "tensorrt-llm"}])
    assert in_image.toolkit_packages == ("nvidia-container-toolkit-base",)
    hooked = planned("l40s", "debian-12", container_engines=["docker"])
    assert set(hooked.toolkit_packages) > set(in_image.toolkit_packages)
    assert "nvidia-container-toolkit" in [entry.name for entry in hooked.repositories]


def test_the_toolkit_is_never_taken_for_a_part_of_the_driver():
    for system in ("debian-12", "ubuntu-24.04", "rhel-9", "rhel-10"):
        plan = planned("l40s", system, container_engines=["docker"])
        assert not [name for name in plan.toolkit_packages if of_the_driver(plan, name)]


def test_a_mirror_stands_in_for_the_vendor_but_not_for_its_key():
    vendor = planned("l40s", "debian-12").repositories[0]
    mirrored = planned("l40s", "debian-12", package_mirrors={"nvidia-cuda": "http://mirror.lan/cuda"}).repositories[0]
    assert (mirrored.url, mirrored.key_url) == ("http://mirror.lan/cuda", "http://mirror.lan/cuda/3bf863cc.pub")
    assert mirrored.fingerprints == vendor.fingerprints != ()


def test_another_cpu_has_its_own_repository_or_is_refused():
    assert planned("h200", "ubuntu-24.04", "aarch64").repositories[0].url.endswith("/sbsa/")
    assert planned("h200", "ubuntu-24.04", "aarch64").repositories[0].architecture == "arm64"
    (problem,) = outcome("h200", "debian-13", "aarch64")
    assert "has packages for x86_64, and the host is aarch64" in problem.message


def test_rocm_goes_onto_a_host_only_for_a_runtime_that_links_it():
    assert not [name for name in planned("mi300x", "ubuntu-24.04").packages if "rocm" in name]
    service = {"name": "a", "model": "qwen3-8b", "runtime": "llama.cpp"}
    linked = planned("mi300x", "ubuntu-24.04", services=[service])
    assert [name for name in linked.packages if "rocm" in name]
    assert "rocm" in [entry.name for entry in linked.repositories]


def test_a_series_of_amdgpu_has_its_own_repository():
    assert "31.50" in planned("mi300x", "ubuntu-24.04").repositories[0].url
    assert "30.30" in planned("mi300x", "ubuntu-24.04", driver_branch="30.30").repositories[0].url


def test_an_arc_card_gets_the_kernel_that_knows_it():
    plan = planned("arc-b580", "ubuntu-24.04")
    assert plan.packages[0] == "linux-generic-hwe-24.04"
    assert plan.modules == ("xe",)
    assert planned("arc-b580", "ubuntu-26.04").kernel_package == ""


def test_hosts_without_a_gpu_have_nothing_to_install():
    assert not planned("cpu", "debian-12", memory_mib=8192).installs
    assert not planned("rtx-4090", "debian-12", gpu_simulated=True).installs


# kernels

META = {"linux-image-generic": "1", "linux-image-6.8.0-51-generic": "1"}
HWE = META | {"linux-image-generic-hwe-24.04": "1"}


@pytest.mark.parametrize(
    ("system", "kernel", "packages", "suffix"),
    [
        ("ubuntu-24.04", "6.8.0-51-generic", META, "generic"),
        ("ubuntu-24.04", "6.17.0-8-generic", HWE, "generic-hwe-24.04"),
        ("ubuntu-24.04", "6.8.0-1021-aws", META | {"linux-image-aws": "1"}, "aws"),
        ("ubuntu-24.04", "6.8.0-1021-aws", META, ""),
        ("debian-12", "6.1.0-56-amd64", {"linux-image-amd64": "1"}, "amd64"),
        ("debian-12", "6.1.0-56-cloud-amd64", {"linux-image-cloud-amd64": "1"}, "cloud-amd64"),
        ("debian-12", "6.18.44-own", {}, ""),
    ],
)
def test_modules_follow_the_kernels_metapackage(system, kernel, packages, suffix):
    assert kernel_suffix(state(system, kernel, packages=packages)) == suffix


def test_without_a_metapackage_the_modules_of_both_kernels_are_named():
    plan = planned("l40s", "ubuntu-24.04")
    found = package_names(plan, state("ubuntu-24.04", "6.8.0-51-generic", next_kernel="6.8.0-60-generic"))
    assert [name for name in found if name.startswith("linux-modules")] == [
        "linux-modules-nvidia-580-server-open-6.8.0-51-generic",
        "linux-modules-nvidia-580-server-open-6.8.0-60-generic",
    ]


def test_the_metapackage_comes_beside_the_modules_that_are_needed_before_it_brings_any():
    plan = planned("l40s", "ubuntu-24.04")
    found = package_names(
        plan, state("ubuntu-24.04", "6.8.0-51-generic", next_kernel="6.8.0-60-generic", packages=META)
    )
    assert [name for name in found if name.startswith("linux-modules")] == [
        "linux-modules-nvidia-580-server-open-6.8.0-51-generic",
        "linux-modules-nvidia-580-server-open-6.8.0-60-generic",
        "linux-modules-nvidia-580-server-open-generic",
    ]


def test_headers_are_asked_for_where_they_are_missing():
    plan = planned("l40s", "debian-12")
    bare = state("debian-12", "6.1.0-50-amd64", next_kernel="6.1.0-56-amd64", packages={"linux-image-amd64": "1"})
    assert [name for name in package_names(plan, bare) if "headers" in name] == [
        "linux-headers-6.1.0-50-amd64",
        "linux-headers-6.1.0-56-amd64",
        "linux-headers-amd64",
    ]
    there = bare.model_copy(update={"headers": ("6.1.0-50-amd64", "6.1.0-56-amd64")})
    assert [name for name in package_names(plan, there) if "headers" in name] == ["linux-headers-amd64"]
    assert asked_for(plan) == ["linux-headers-{release}"]


# Apple


def test_an_apple_gpu_may_use_what_the_planner_counts_on_but_never_all():
    host = Host.model_validate({"name": "m1", "gpu_tag": "apple-m4-max", "memory_mib": 131072})
    gpu = CATALOG.gpus["apple-m4-max"]
    assert wired_limit_mib(host, gpu, node("macos-15", memory_mib=131072)) == int(131072 * gpu.unified_share)
    small = host.model_copy(update={"memory_mib": 8192})
    assert wired_limit_mib(small, gpu, node("macos-15", memory_mib=8192)) == 4096
    assert wired_limit_mib(host, CATALOG.gpus["l40s"], node("debian-12")) is None
