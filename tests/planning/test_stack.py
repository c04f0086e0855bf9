"""The rules of the stack solver on drivers, from both sides, and what all of them have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.domain.stack import NvidiaDriver
from rackserve.planning.decision_table import table
from rackserve.report.stack_page import page
from tests.planning.stacking import (
    A100,
    B200,
    FACTS,
    L40S,
    MI300X,
    RTX_5090,
    T4,
    V100,
    card,
    catalog,
    refused,
    solved,
    the_problem,
)

# driver branches


@pytest.mark.parametrize("gpu", [V100, T4, A100, L40S, RTX_5090, B200], ids=lambda gpu: gpu.tag)
@pytest.mark.parametrize("system", ["ubuntu-22.04", "ubuntu-24.04", "ubuntu-26.04", "debian-13", "rocky-9", "rhel-10"])
def test_the_branch_is_580_unless_another_is_asked_for(gpu, system):
    stack = solved(gpu, os=system)
    assert (stack.driver_branch, stack.driver_version) == ("580", "580.178.04")


@pytest.mark.parametrize("branch", ["580", "595", "610", "615", "620"])
def test_a_branch_that_is_supported_is_taken_when_it_is_asked_for(branch):
    assert solved(L40S, driver_branch=branch).driver_branch == branch


@pytest.mark.parametrize("branch", ["570", "590"])
def test_a_branch_past_its_end_needs_allow_eol(branch):
    problem = the_problem(L40S, driver_branch=branch)
    assert f"no longer supports driver branch {branch}" in problem.message
    assert "580" in problem.hint
    assert "allow_eol" in problem.hint
    stack = solved(L40S, driver_branch=branch, allow_eol=True)
    assert stack.driver_branch == branch
    assert f"driver {branch} gets no security updates any more" in stack.warnings


@pytest.mark.parametrize("branch", ["590", "595", "610", "615"])
def test_branches_from_590_on_do_not_drive_what_is_older_than_turing(branch):
    problem = refused(V100, driver_branch=branch, allow_eol=True)[0]
    assert problem.message == f"driver {branch} is for compute capability 7.5 and up, and v100 has 7.0"
    assert problem.hint == "driver_branch 580"
    assert solved(T4, driver_branch=branch, allow_eol=True).driver_branch == branch


def test_a_card_that_is_newer_than_the_branch_is_refused():
    later = card("later", "12.0", "open", driver_min="595")
    assert the_problem(later, driver_branch="580").message == "later needs driver 595 or newer, and this is 580"
    assert solved(later).driver_branch == "595"
    assert any("580 come first" in reason for reason in solved(later).reasons)


def test_an_unknown_branch_is_refused_with_the_known_ones():
    problem = the_problem(L40S, driver_branch="555", runtimes=["vllm 0.33.0"])
    assert problem.message == "555 is no driver branch of the catalogue"
    assert "580, 590, 595" in problem.hint


def test_a_branch_of_the_operators_own_is_taken():
    entry = NvidiaDriver(
        branch="630", kind="production", supported=True, capability_min="7.5", kernel_modules=("open",), **FACTS
    )
    assert solved(L40S, facts=catalog(nvidia_drivers={"630": entry}), driver_branch="630").driver_version is None


# flavour of the kernel module


@pytest.mark.parametrize("gpu", [RTX_5090, B200], ids=lambda gpu: gpu.tag)
def test_blackwell_takes_open_modules_only(gpu):
    assert solved(gpu).kernel_module == "open"
    problem = the_problem(gpu, kernel_module="proprietary")
    assert f"{gpu.tag} takes open" in problem.message
    assert "proprietary is asked for" in problem.message
    assert problem.hint == "kernel_module open"


def test_blackwell_takes_open_modules_even_if_its_tag_does_not_say_so():
    assert the_problem(card("mine", "12.0", "none"), kernel_module="proprietary").key == "kernel_module"


def test_turing_to_hopper_take_either_and_open_by_default():
    assert solved(A100).kernel_module == "open"
    assert solved(A100, kernel_module="proprietary").kernel_module == "proprietary"


@pytest.mark.parametrize(("branch", "possible"), [("610", True), ("615", False), ("620", False)])
def test_610_is_the_last_branch_with_proprietary_modules(branch, possible):
    if possible:
        assert solved(A100, driver_branch=branch, kernel_module="proprietary").kernel_module == "proprietary"
    else:
        problem = the_problem(A100, driver_branch=branch, kernel_module="proprietary")
        assert f"driver {branch} has open" in problem.message


def test_volta_takes_proprietary_modules_only():
    assert solved(V100).kernel_module == "proprietary"
    problem = the_problem(V100, kernel_module="open")
    assert "v100 takes proprietary" in problem.message
    assert problem.hint == "kernel_module proprietary"


def test_old_and_new_cards_share_580_with_proprietary_modules():
    stack = solved(V100, A100)
    assert (stack.driver_branch, stack.kernel_module) == ("580", "proprietary")


def test_volta_and_blackwell_cannot_share_a_host():
    problem = the_problem(V100, RTX_5090)
    assert "v100 takes proprietary" in problem.message
    assert "rtx-5090 takes open" in problem.message
    assert "hosts of their own" in problem.hint


# NVSwitch


@pytest.mark.parametrize(
    ("gpu", "fabric_manager", "nvlsm"), [(L40S, False, False), (A100, True, False), (B200, True, True)]
)
def test_boards_with_nvswitch_need_fabric_manager_and_from_blackwell_on_nvlsm(gpu, fabric_manager, nvlsm):
    stack = solved(gpu)
    assert (stack.fabric_manager, stack.nvlsm) == (fabric_manager, nvlsm)


# all at once


def test_cards_of_two_vendors_are_refused():
    assert "l40s is nvidia, mi300x is amd" in the_problem(L40S, MI300X).message


def test_everything_wrong_is_named_at_once():
    problems = refused(
        V100,
        RTX_5090,
        os="beos-5",
        kernel="?",
        driver_branch="590",
        runtimes=["vllm 0.33.0", "sglang 9.9", "tensorrt-llm 1.2.1", "tgi"],
    )
    text = "\n".join(str(problem) for problem in problems)
    for fact in (
        "beos-5 is not a system",
        "'?' is no kernel release",
        "no longer supports driver branch 590",
        "driver 590 is for compute capability 7.5 and up, and v100 has 7.0",
        "no flavour of the kernel module suits all",
        "vllm 0.33.0 has kernels for compute capability 7.5 and up, and v100 has 7.0",
        "sglang 9.9 is not in the catalogue",
        "tensorrt-llm 1.2.1 has kernels for compute capability 8.0 and up, and v100 has 7.0",
        "tgi is not a runtime",
    ):
        assert fact in text
    assert len(problems) == len(set(problems))


def test_every_decision_has_its_reason():
    reasons = "\n".join(solved(B200, runtimes=["vllm 0.33.0", "tensorrt-llm"]).reasons)
    for word in (
        "driver 580",
        "open kernel modules",
        "fabric manager",
        "vllm 0.33.0",
        "asked for",
        "Container Toolkit",
    ):
        assert word in reasons


# the table of all


TABLE = table(load_catalog())
CELLS = [(tag, system) for tag, cells in TABLE.items() for system in cells]


@pytest.mark.parametrize(("tag", "system"), CELLS, ids=str)
def test_each_cell_keeps_what_its_card_and_system_demand(tag, system):
    shipped = load_catalog()
    gpu, entry = shipped.gpus[tag], TABLE[tag][system]
    assert bool(entry.refused) or bool(entry.driver) or gpu.vendor == "none"
    if system.startswith("macos"):
        assert bool(entry.refused) == (gpu.vendor not in {"apple", "none"})
    elif gpu.vendor == "apple":
        assert entry.refused
    if gpu.vendor == "nvidia" and not entry.refused:
        assert ("proprietary" in entry.driver) == (gpu.kernel_module == "proprietary")
        assert ("signed" in entry.driver) == system.startswith("ubuntu")
        branch, floor = entry.driver.split()[0], gpu.driver_min or "0"
        assert int(branch) >= int(floor.split(".")[0])
    if gpu.vendor in {"intel", "apple", "none"}:
        assert not any(
            name.startswith(("vllm", "sglang", "tensorrt-llm")) and gpu.vendor != "none" for name in entry.runtimes
        )
    if gpu.vendor == "amd" and not entry.refused:
        assert "AMD" in entry.driver
        assert not any(name.startswith("tensorrt-llm") for name in entry.runtimes)


def test_the_page_of_drivers_is_the_table():
    written = (Path(__file__).parents[2] / "docs" / "drivers.md").read_text(encoding="utf-8")
    assert written == page(load_catalog()), "run `make docs`"
