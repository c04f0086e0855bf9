"""What apt and dnf print of what they would do: nothing they would change is overlooked."""

from __future__ import annotations

import math

from hypothesis import example, given
from hypothesis import strategies as st

from rackserve.facts.simulation import Simulation, exact, parse_apt, parse_dnf
from rackserve.facts.version_locks import parse_version_locks
from rackserve.planning.transaction import SimulatedTransaction

# apt 2.6 of Debian 12, names and numbers shortened.
APT = """Reading package lists...
Building dependency tree...
The following additional packages will be installed:
  libcuda1 libcuda1:i386
The following packages will be REMOVED:
  nvidia-legacy-check other
The following NEW packages will be installed:
  nvidia-driver-cuda
The following packages will be upgraded:
  libcuda1 libcuda1:i386
2 upgraded, 1 newly installed, 2 to remove and 0 not upgraded.
Remv other [1:2.0-1]
Purg nvidia-legacy-check [470-1] [nvidia-driver-cuda:amd64 ]
Inst libcuda1 [575.57.08-1] (580.95.05-1 NVIDIA:cuda [amd64]) [libcuda1:amd64 on libcuda1:i386]
Inst libcuda1:i386 [575.57.08-1] (580.95.05-1 NVIDIA:cuda [i386])
Inst nvidia-driver-cuda (580.95.05-1 NVIDIA:cuda [amd64])
Conf libcuda1 (580.95.05-1 NVIDIA:cuda [amd64])
@code
0
@sizes
Need to get 3,115 kB/312.5 MB of archives.
After this operation, 1,024 MB of additional disk space will be used.
@candidates
nvidia-driver-cuda | 580.95.05-1 | http://mirror.lan/cuda  Packages
nvidia-driver-cuda | 575.57.08-1 | http://mirror.lan/cuda  Packages
nvidia-driver-cuda | 580.95.05-1 | http://mirror.lan/cuda  Packages
  libcuda1 | 580.95.05-1 | http://mirror.lan/cuda  Packages
@installed
libcuda1|575.57.08-1
"""
# dnf 4.14 of Rocky 9 without a terminal: 80 columns, and what is too long for its column breaks the line.
DNF = """Last metadata expiration check: 0:00:31 ago on Tue 24 Nov 2026 10:00:00 AM UTC.
Dependencies resolved.
================================================================================
 Package                  Arch    Version             Repository           Size
================================================================================
Installing:
 nvidia-driver-cuda       x86_64  3:580.95.05-1.el9   rackserve-nvidia-cuda
                                                                          614 k
     replacing  nvidia-driver-cuda-legacy.x86_64 3:470.256-1.el9
Upgrading:
 nvidia-kmod-common       noarch  3:580.95.05-1.el9   rackserve-nvidia-cuda
                                                                           76 M
Installing dependencies:
 kernel-devel-matched     x86_64  5.14.0-570.el9      appstream           999
 nvidia-persistenced-with-a-very-long-name
                          x86_64  3:580.95.05-1.el9   rackserve-nvidia-cuda
                                                                           31 k
Installing weak dependencies:
 opencl-filesystem        noarch  1.0-15.el9          appstream            25 k
Downgrading:
 libnvidia-ml             x86_64  3:580.95.05-1.el9   rackserve-nvidia-cuda
                                                                          1.2 M
Reinstalling:
 nvidia-modprobe          x86_64  3:580.95.05-1.el9   rackserve-nvidia-cuda
                                                                           29 k
Removing dependent packages:
 nvidia-open              noarch  3:575.57.08-1.el9   @cuda                 0
 kernel                   x86_64  5.14.0-503.el9      @baseos               0
 other                    x86_64  1.0-1.el9           @epel               1.1 M
Removing unused dependencies:
 egl-wayland              x86_64  1.1.13-1.el9        @appstream           72 k
Enabling module streams:
 nvidia-driver                    open-dkms

Transaction Summary
================================================================================
Install    4 Packages
Upgrade    1 Package
Remove     4 Packages
Downgrade  1 Package

Total download size: 79 M
Installed size: 264 M
Operation aborted.
@code
1
@candidates
nvidia-driver-cuda|575.57.08-1.el9
nvidia-driver-cuda|580.95.05-1.el9
@installed
nvidia-kmod-common|575.57.08-1.el9
libnvidia-ml|581.10-1.el9
"""


def apt(text: str) -> SimulatedTransaction:
    return Simulation().process(["apt", *text.splitlines()])


def dnf(text: str) -> SimulatedTransaction:
    return Simulation().process(["dnf", *text.splitlines()])


# apt


def test_all_that_apt_would_do_is_told():
    found = apt(APT)
    assert found.installs == {"nvidia-driver-cuda": "580.95.05-1"}
    assert found.upgrades == {"libcuda1": "580.95.05-1", "libcuda1:i386": "580.95.05-1"}
    assert found.replaced == {"libcuda1": "575.57.08-1", "libcuda1:i386": "575.57.08-1"}
    assert found.removals == ("other", "nvidia-legacy-check")
    assert found.installed == {"libcuda1": "575.57.08-1"}
    assert found.candidates == {"nvidia-driver-cuda": ("580.95.05-1", "575.57.08-1"), "libcuda1": ("580.95.05-1",)}
    # What is to be fetched, not what has been fetched already.
    assert (found.download_bytes, found.disk_bytes, found.error) == (3_115_000, 1_024_000_000, "")


def test_space_that_apt_gives_back_is_negative():
    assert apt("@code\n0\n@sizes\nAfter this operation, 12.5 MB disk space will be freed.\n").disk_bytes == -12_500_000


def test_what_apt_cannot_satisfy_is_told_with_all_its_reasons():
    said = apt(
        """Reading package lists...
Some packages could not be installed. This may mean that you have
requested an impossible situation or if you are using the unstable
The following packages have unmet dependencies:
 nvidia-open : Depends: nvidia-kernel-open-dkms (= 580.95.05-1) but it is not going to be installed
               Depends: libcuda1 (= 580.95.05-1) but 575.57.08-1 is to be installed
E: Unable to correct problems, you have held broken packages.
@code
100
"""
    ).error
    assert said == (
        "nvidia-open : Depends: nvidia-kernel-open-dkms (= 580.95.05-1) but it is not going to be installed; "
        "Depends: libcuda1 (= 580.95.05-1) but 575.57.08-1 is to be installed; "
        "E: Unable to correct problems, you have held broken packages."
    )


def test_what_the_newer_solver_of_apt_says_is_told_in_its_order():
    # apt 3, of Debian 13 and Ubuntu 26.04.
    said = apt(
        """Solving dependencies...
Unsatisfied dependencies:
 a : Depends: b (= 2) but it is not going to be installed
E: Unable to satisfy dependencies. Reached two conflicting decisions:
   1. b:amd64=2 is not selected for install
   2. b:amd64=2 is selected for install because:
      1. a:amd64=2 is selected for install
      2. a:amd64=2 Depends b (= 2)
@code
100
"""
    ).error
    assert said.endswith(
        "Reached two conflicting decisions:; 1. b:amd64=2 is not selected for install; 2. b:amd64=2 is selected for "
        "install because:; 1. a:amd64=2 is selected for install; 2. a:amd64=2 Depends b (= 2)"
    )


def test_an_error_without_a_reason_is_an_error():
    assert apt("").error
    assert apt("@code\n100\n").error == "no solution, and no word on why"
    assert apt("Segmentation fault\n@code\n139\n").error == "Segmentation fault"


# dnf


def test_all_that_dnf_would_do_is_told():
    found = dnf(DNF)
    assert found.installs == {
        "nvidia-driver-cuda": "3:580.95.05-1.el9",
        "kernel-devel-matched": "5.14.0-570.el9",
        "nvidia-persistenced-with-a-very-long-name": "3:580.95.05-1.el9",
        "opencl-filesystem": "1.0-15.el9",
    }
    assert found.upgrades == {"nvidia-kmod-common": "3:580.95.05-1.el9", "libnvidia-ml": "3:580.95.05-1.el9"}
    assert found.replaced == {"nvidia-kmod-common": "575.57.08-1.el9", "libnvidia-ml": "581.10-1.el9"}
    # Also what is obsoleted, and what has no size of its own.
    assert set(found.removals) == {"nvidia-driver-cuda-legacy", "nvidia-open", "kernel", "other", "egl-wayland"}
    assert found.candidates == {"nvidia-driver-cuda": ("575.57.08-1.el9", "580.95.05-1.el9")}
    assert (found.download_bytes, found.disk_bytes, found.error) == (79 * 2**20, 264 * 2**20, "")


def test_nothing_to_do_for_dnf_is_no_error():
    found = dnf(
        "Package a-1-1.x86_64 is already installed.\nDependencies resolved.\nNothing to do.\nComplete!\n@code\n0\n"
    )
    assert found == SimulatedTransaction()


def test_what_dnf_cannot_solve_is_told_without_its_advice():
    found = dnf(
        """Last metadata expiration check: 0:00:31 ago on Tue 24 Nov 2026 10:00:00 AM UTC.
Error:
 Problem: package nvidia-open-3:580.95.05-1.el9.noarch from cuda requires kmod-nvidia-open-dkms, but none
  - conflicting requests
  - nothing provides dkms >= 3.1 needed by kmod-nvidia-open-dkms-3:580.95.05-1.el9.noarch from cuda
(try to add '--allowerasing' to command line to replace conflicting packages or '--nobest')
@code
1
"""
    )
    assert found.error == (
        "Error:; Problem: package nvidia-open-3:580.95.05-1.el9.noarch from cuda requires kmod-nvidia-open-dkms, but "
        "none; - conflicting requests; - nothing provides dkms >= 3.1 needed by "
        "kmod-nvidia-open-dkms-3:580.95.05-1.el9.noarch from cuda"
    )
    assert not found.changes


def test_a_package_that_dnf_does_not_know_is_named():
    said = dnf(
        "No match for argument: nvidia-open-999\nError: Unable to find a match: nvidia-open-999\n@code\n1\n"
    ).error
    assert said == "No match for argument: nvidia-open-999; Error: Unable to find a match: nvidia-open-999"


def test_a_repository_that_dnf_cannot_read_is_an_error():
    assert "Failed to download metadata" in dnf("Error: Failed to download metadata for repo 'cuda'\n@code\n1\n").error


def test_dnf_takes_a_version_behind_the_name():
    assert exact(["a", "b"], {"b": "580.95.05"}) == ["a", "b-580.95.05"]


def test_versions_that_dnf_holds_are_told_and_exclusions_are_none():
    assert parse_version_locks(
        [
            "# Added lock on Tue Nov 24 10:00:00 2026",
            "nvidia-driver-cuda-3:580.95.05-1.el9.*",
            "kernel-0:5.14.0-570.el9.*",
            "!libnvidia-ml-3:581.10-1.el9.*",
            "",
        ]
    ) == {"nvidia-driver-cuda": "580.95.05", "kernel": "5.14.0"}


# anything

anything = st.lists(
    st.text(max_size=30)
    | st.sampled_from([*APT.splitlines(), *DNF.splitlines(), "     replacing ", "Inst", "Remv ", "Need to get ,", "|"])
    | st.builds("Need to get {} MB of archives.".format, st.text("0123456789.,/² ", max_size=8)),
    max_size=12,
)


@given(anything)
@example(["     replacing "])
@example(["@sizes", f"Need to get {'9' * 400} MB"])
def test_no_output_of_a_package_manager_makes_a_parser_raise(lines):
    # An exception here would end the run for all hosts.
    for simulation in (parse_apt(lines), parse_dnf(lines)):
        assert simulation.changes == bool(simulation.installs or simulation.upgrades or simulation.removals)
        assert (simulation.disk_bytes or 0, simulation.download_bytes or 0) < (math.inf, math.inf)
    assert parse_version_locks(lines) == parse_version_locks([*lines, ""])
