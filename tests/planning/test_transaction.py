"""What is refused before a package manager may touch a host, by the simulation of it."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.planning.driver_plan import DriverPlan
from rackserve.planning.transaction import (
    SimulatedTransaction,
    has_stated_version,
    is_of_version,
    transaction_problems,
    upstream,
)
from tests.planning.driver_pairs import planned

# NVIDIA's own repository, held to a version; Ubuntu's archive, the newest of a branch; AMD, with numbers of its own.
EXACT = planned("l40s", "debian-12", driver_version="580.95.05")
MOVING = planned("l40s", "ubuntu-24.04")
AMD = planned("mi300x", "ubuntu-24.04")
MIB = 2**20
ROOMY = {"/": 100_000}


def problems(plan: DriverPlan, free: dict[str, int] = ROOMY, **values: Any) -> tuple[str, ...]:
    return transaction_problems(SimulatedTransaction(**values), plan, free)


@pytest.mark.parametrize(
    ("version", "bare"),
    [
        ("580.95.05-1", "580.95.05"),
        ("580.95.05-0ubuntu0.24.04.1", "580.95.05"),
        ("3:580.95.05-1.el9", "580.95.05"),
        ("580.95.05", "580.95.05"),
        ("1:580.95.05", "580.95.05"),
        ("2.0-rc1-3", "2.0-rc1"),
    ],
)
def test_the_vendors_part_of_a_version_is_what_counts(version, bare):
    assert upstream(version) == bare


def test_a_transaction_as_planned_has_no_problems():
    assert (
        problems(
            EXACT,
            installs={
                "nvidia-driver-cuda": "580.95.05-1",
                "nvidia-kernel-open-dkms": "580.95.05-1",
                "dkms": "3.0.10-8",
            },
            upgrades={"libcuda1": "580.95.05-1"},
            replaced={"libcuda1": "575.57.08-1"},
            installed={"libcuda1": "575.57.08-1"},
            candidates={"libcuda1": ("580.95.05-1", "575.57.08-1")},
            download_bytes=300 * MIB,
            disk_bytes=900 * MIB,
        )
        == ()
    )


def test_nothing_to_do_is_no_problem_even_on_a_full_disk():
    assert problems(EXACT, {"/": 0, "/var": 0}, installed={"libcuda1": "580.95.05-1"}) == ()


# removals


@pytest.mark.parametrize("name", ["postgresql-15", "linux-image-amd64", "nvidia-container-toolkit", "libcuda12"])
def test_what_is_not_the_drivers_is_not_removed_for_it(name):
    (line,) = problems(EXACT, removals=("nvidia-driver-libs", name))
    assert f"installing the driver would remove {name}, and these are not the driver's" in line
    assert "run again" in line


def test_the_drivers_own_packages_may_go():
    assert problems(EXACT, removals=("nvidia-driver-libs", "libnvidia-ml1", "libcuda1", "libcuda1:i386")) == ()
    assert problems(MOVING, removals=("nvidia-utils-580-server",)) == ()


def test_what_is_the_drivers_on_one_system_is_not_on_another():
    assert problems(MOVING, removals=("libcuda1",))


def test_many_removals_are_counted_not_listed():
    (line,) = problems(EXACT, removals=tuple(f"p{number}" for number in range(11)))
    assert "would remove p0, p1, p2, p3, p4, p5, p6, p7 and 3 more, and" in line


# versions


def test_a_package_of_another_version_than_planned_is_named_with_what_there_is():
    (line,) = problems(
        EXACT,
        installs={"nvidia-driver-cuda": "580.95.05-1", "libnvidia-ml1": "581.10-1"},
        candidates={"libnvidia-ml1": ("581.10-1", "575.57.08-1")},
    )
    assert line == (
        "libnvidia-ml1 would be of version 581.10, planned is 580.95.05; the repositories have 581.10-1, 575.57.08-1"
    )


def test_what_stays_of_another_version_is_a_problem_as_well():
    before = {"libnvidia-ml1": "575.57.08-1", "libcuda1": "575.57.08-1"}
    (line,) = problems(EXACT, installed=before, upgrades={"libcuda1": "580.95.05-1"})
    assert line.startswith("libnvidia-ml1 would be of version 575.57.08, planned is 580.95.05")
    assert problems(EXACT, installed=before, upgrades={"libcuda1": "580.95.05-1"}, removals=("libnvidia-ml1",)) == ()


def test_a_library_for_another_architecture_is_of_the_version_too():
    (line,) = problems(EXACT, upgrades={"libcuda1": "580.95.05-1", "libcuda1:i386": "575.57.08-1"})
    assert line.startswith("libcuda1:i386 would be of version 575.57.08")


def test_what_goes_beside_the_driver_has_versions_of_its_own():
    beside = {"dkms": "3.0.10-8", "datacenter-gpu-manager-4-core": "1:4.4.1-1", "nvidia-container-toolkit": "1.17.8-1"}
    assert problems(EXACT, installs=beside) == ()
    assert problems(MOVING, installs=beside | {"nvidia-utils-580-server": "580.95.05-0ubuntu0.24.04.1"}) == ()


def test_without_a_planned_version_all_have_to_be_of_one():
    one = {
        "nvidia-utils-580-server": "580.95.05-0ubuntu0.24.04.1",
        "libnvidia-compute-580-server": "580.95.05-0ubuntu0.24.04.2",
    }
    assert problems(MOVING, installs=one) == ()
    two = one | {"nvidia-fabricmanager-580": "580.82.07-0ubuntu0.24.04.1"}
    (line,) = problems(MOVING, installs=two)
    assert "580.82.07 (nvidia-fabricmanager-580)" in line
    assert "580.95.05 (libnvidia-compute-580-server, nvidia-utils-580-server)" in line
    assert "state driver_version" in line
    # What is there already and stays counts, whatever brought it.
    assert problems(MOVING, installs=one, installed={"nvidia-fabricmanager-580": "580.82.07-0ubuntu0.24.04.1"}) == (
        line,
    )


def test_amds_packages_carry_numbers_of_their_own():
    assert AMD.together
    names = [name.replace("*", "x") for name in AMD.together]
    different = {name: f"{number}.0-1" for number, name in enumerate(names, start=1)}
    assert problems(AMD, installs=different) == ()
    assert not any(has_stated_version(AMD, name) for name in names)


def test_whether_a_package_has_the_planned_version_is_told_by_itself():
    assert is_of_version(EXACT, "libcuda1", "580.95.05-1")
    assert not is_of_version(EXACT, "libcuda1", "580.95.05.1-1")
    assert is_of_version(EXACT, "dkms", "3.0.10-8")
    assert is_of_version(MOVING, "nvidia-utils-580-server", "580.1-1")


# no solution


def test_no_solution_is_told_in_the_package_managers_words_and_alone():
    assert problems(EXACT, {"/": 0}, error="E: broken", removals=("other",), installs={"libcuda1": "1-1"}) == (
        "the driver's packages cannot be installed: E: broken",
    )


def test_a_version_that_the_repositories_lack_is_the_reason_behind_no_solution():
    first, second = problems(
        EXACT,
        error="E: Package 'libcuda1' has no installation candidate",
        candidates={
            "libcuda1": ("581.10-1", "575.57.08-1"),
            "nvidia-driver-cuda": ("580.95.05-1", "575.57.08-1"),
            "dkms": ("3.0.10-8",),
        },
    )
    assert "has no installation candidate" in first
    assert second == "libcuda1 is wanted in version 580.95.05; the repositories have 581.10-1, 575.57.08-1"


# space


def test_one_file_system_holds_what_is_fetched_and_what_is_unpacked():
    sizes = {"installs": {"dkms": "3"}, "download_bytes": 300 * MIB, "disk_bytes": 900 * MIB}
    for free in ({"/": 300 + 900 + 512}, {"/": 300 + 900 + 512, "/var": 300 + 900 + 512}):
        assert problems(EXACT, free, **sizes) == ()
    (line,) = problems(EXACT, {"/": 300 + 900 + 511}, **sizes)
    assert line.startswith("/ has 1711 MiB free, 1712 MiB are needed: 300 MiB to fetch, 900 MiB unpacked, 512 MiB")


def test_a_file_system_of_its_own_for_var_holds_what_is_fetched():
    sizes = {"installs": {"dkms": "3"}, "download_bytes": 300 * MIB, "disk_bytes": 900 * MIB}
    assert problems(EXACT, {"/": 900 + 512, "/var": 300 + 512}, **sizes) == ()
    (root,) = problems(EXACT, {"/": 900 + 511, "/var": 300 + 512}, **sizes)
    (var,) = problems(EXACT, {"/": 900 + 512, "/var": 300 + 511}, **sizes)
    assert root.startswith("/ has 1411 MiB free, 1412 MiB are needed")
    assert var.startswith("/var has 811 MiB free, 812 MiB are needed")
    assert len(problems(EXACT, {"/": 0, "/var": 1}, **sizes)) == 2


def test_space_that_is_given_back_is_not_counted_on():
    # The new files are there before the old ones go.
    assert problems(EXACT, {"/": 512}, upgrades={"dkms": "4"}, disk_bytes=-(2**30)) == ()
    assert problems(EXACT, {"/": 511}, upgrades={"dkms": "4"}, disk_bytes=-(2**30))


def test_a_part_of_a_mebibyte_needs_a_whole_one():
    assert problems(EXACT, {"/": 512}, installs={"dkms": "3"}, download_bytes=1)


def test_sizes_and_space_that_nobody_told_are_no_problem_by_themselves():
    assert problems(EXACT, {}, installs={"dkms": "3"}, download_bytes=2**40) == ()
    assert problems(EXACT, {"/": 512}, installs={"dkms": "3"}) == ()


def test_several_problems_are_told_at_once():
    found = problems(
        EXACT, {"/": 1}, removals=("other",), installs={"libcuda1": "575.57.08-1"}, download_bytes=MIB, disk_bytes=MIB
    )
    assert [line.split()[0] for line in found] == ["installing", "libcuda1", "/"]
