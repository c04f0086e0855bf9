"""The rules of the stack solver on operating systems and their kernels, from both sides."""

from __future__ import annotations

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.planning.stack import Stack
from tests.planning.stacking import (
    ARC,
    CPU,
    L40S,
    M4,
    MI300X,
    catalog,
    outcome,
    refused,
    solved,
    the_problem,
)

# operating systems


@pytest.mark.parametrize(
    ("system", "branch", "source"),
    [
        ("ubuntu-24.04", "580", "distribution"),
        ("ubuntu-24.04", "615", "nvidia"),
        ("ubuntu-26.04", "580", "distribution"),
        ("ubuntu-26.04", "615", "distribution"),
        ("ubuntu-26.04", "610", "nvidia"),
        ("debian-13", "580", "nvidia"),
        ("rocky-9", "595", "nvidia"),
        (None, "580", "unknown"),
    ],
)
def test_where_the_driver_comes_from(system, branch, source):
    assert solved(L40S, os=system, driver_branch=branch).driver_source == source


def test_a_system_without_the_driver_is_refused():
    assert "nobody packages driver 580 for Debian testing" in the_problem(L40S, os="debian-forky").message


def test_the_oldest_branch_of_a_repository_holds():
    facts = load_catalog().stacks.systems["ubuntu-26.04"].model_copy(update={"nvidia_signed": ()})
    changed = catalog(systems={"ubuntu-26.04": facts})
    assert "595" in the_problem(L40S, facts=changed, os="ubuntu-26.04", driver_branch="580").hint
    assert solved(L40S, facts=changed, os="ubuntu-26.04").driver_branch == "595"


def test_an_os_that_is_not_stated_is_not_checked_and_that_is_said():
    stack = solved(L40S, os=None, runtimes=["vllm"])
    assert [warning for warning in stack.warnings if warning.startswith("os not stated: ")]
    assert not [warning for warning in solved(L40S).warnings if warning.startswith("os not stated")]


def test_an_unknown_os_is_refused_with_the_known_ones():
    problem = the_problem(L40S, os="beos-5")
    assert "ubuntu-24.04" in problem.hint
    assert problem.key == "os"


def test_secure_boot_needs_modules_that_the_distribution_signed():
    assert solved(L40S, secure_boot=True).driver_source == "distribution"
    problem = the_problem(L40S, os="debian-12", secure_boot=True)
    assert problem.key == "secure_boot"
    assert not [warning for warning in solved(L40S, os="debian-12", secure_boot=False).warnings if "secure" in warning]
    assert [warning for warning in solved(L40S, os="debian-12").warnings if "secure boot not stated" in warning]


def test_a_wheel_that_needs_a_newer_c_library_makes_way_for_an_image():
    assert solved(MI300X, os="ubuntu-24.04", runtimes=["vllm 0.33.0"]).runtimes["vllm"].install == "wheel"
    assert solved(MI300X, os="rhel-9", runtimes=["vllm 0.33.0"]).runtimes["vllm"].install == "image"
    problem = the_problem(CPU, os="rhel-9", runtimes=["vllm 0.33.0"])
    assert "needs glibc 2.35 or newer, and Red Hat Enterprise Linux 9 has 2.34" in problem.message
    assert "llama.cpp" in problem.hint


@pytest.mark.parametrize("kernel", ["", "six", "Linux 6.8"])
def test_what_is_no_kernel_release_is_refused(kernel):
    assert the_problem(L40S, kernel=kernel).key == "kernel"


# Intel, Apple, no GPU


@pytest.mark.parametrize(
    ("system", "kernel", "keys"),
    [
        ("ubuntu-24.04", None, None),
        ("ubuntu-24.04", "6.17.0-35-generic", None),
        ("ubuntu-24.04", "6.8.0-151-generic", {"kernel"}),
        ("ubuntu-26.04", None, None),
        ("debian-13", None, {"os"}),
        ("ubuntu-22.04", None, {"kernel", "os"}),
        ("debian-12", None, {"kernel", "os"}),
        ("rhel-9", None, {"kernel", "os"}),
        ("rhel-10", None, {"os"}),
        (None, "6.11.0", {"kernel"}),
        (None, "6.12.0", None),
        (None, None, None),
    ],
)
def test_arc_needs_linux_6_12_and_a_user_mode(system, kernel, keys):
    result = outcome(ARC, os=system, kernel=kernel, runtimes=["llama.cpp"])
    assert keys == (None if isinstance(result, Stack) else {problem.key for problem in result})


def test_arc_under_ubuntu_24_04_takes_the_newer_kernel():
    stack = solved(ARC, runtimes=["llama.cpp"])
    assert (stack.kernel, stack.kernel_package) == ("6.17", "linux-generic-hwe-24.04")
    assert (stack.driver_branch, stack.driver_source, stack.runtimes["llama.cpp"].backend) == (None, "system", "vulkan")
    assert solved(ARC, os="ubuntu-26.04").kernel_package == ""
    assert "linux-generic-hwe-24.04" in the_problem(ARC, kernel="6.8.0-151-generic").hint


@pytest.mark.parametrize(("gpu", "system"), [(ARC, "ubuntu-26.04"), (M4, "macos-26")])
@pytest.mark.parametrize("runtime", ["vllm", "sglang"])
def test_no_vllm_and_no_sglang_on_arc_and_apple(gpu, system, runtime):
    problem = the_problem(gpu, os=system, runtimes=[runtime])
    assert f"has no build for {gpu.tag}" in problem.message
    assert "llama.cpp" in problem.hint


@pytest.mark.parametrize("system", ["macos-15", "macos-26"])
def test_apple_takes_no_driver(system):
    stack = solved(M4, os=system, runtimes=["llama.cpp", "ollama"])
    assert (stack.vendor, stack.driver_branch, stack.driver_source, stack.kernel) == ("apple", None, "system", None)
    assert {runtime.backend for runtime in stack.runtimes.values()} == {"metal"}


@pytest.mark.parametrize(
    ("gpu", "system"), [(M4, "ubuntu-24.04"), (L40S, "macos-26"), (ARC, "macos-15"), (MI300X, "macos-15")]
)
def test_apple_and_macos_go_together_only(gpu, system):
    assert the_problem(gpu, os=system).key == "os"


def test_a_host_without_a_gpu_takes_no_driver():
    for gpus in ((), (CPU,)):
        stack = solved(*gpus, os="debian-12", runtimes=["llama.cpp"])
        assert (stack.vendor, stack.driver_branch, stack.driver_source, stack.cuda) == ("none", None, "none", None)
        assert stack.runtimes["llama.cpp"].install == "archive"


def test_a_distribution_that_packages_the_runtime_gives_its_version():
    runtime = solved(CPU, os="debian-forky", runtimes=["llama.cpp"]).runtimes["llama.cpp"]
    assert (runtime.install, runtime.version) == ("package", "0.7.0")
    tagged = solved(CPU, os="debian-forky", runtimes=["llama.cpp b11429"]).runtimes["llama.cpp"]
    assert (tagged.install, tagged.version) == ("archive", "b11429")


@pytest.mark.parametrize("gpu", [CPU, ARC, M4, MI300X], ids=lambda gpu: gpu.tag)
def test_nvidias_settings_are_refused_elsewhere(gpu):
    system = "macos-26" if gpu is M4 else "ubuntu-26.04"
    keys = {problem.key for problem in refused(gpu, os=system, driver_branch="580", kernel_module="open")}
    assert keys == {"driver_branch", "kernel_module"}
