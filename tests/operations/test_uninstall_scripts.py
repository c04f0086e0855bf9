"""uninstall-deb.sh with real apt and dpkg: what came with rackserve goes, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rackserve.lab.repository import Package
from tests.operations.package_bench import PackageBench, working_bench
from tests.operations.private_root import needs_private_root

pytestmark = needs_private_root
ADDED, BEFORE, TOLD = (
    "/var/lib/rackserve/packages-added",
    "/var/lib/rackserve/packages-before",
    "/run/rackserve-uninstall.log",
)
DRIVER, LIBRARY = Package("nv-driver", "580-1", depends="nv-library"), Package("nv-library", "580-1")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[PackageBench]:
    with working_bench(tmp_path) as made:
        made.publish(DRIVER, LIBRARY, Package("already-there", "1-1"), Package("linux-image-9.9-lab", "1-1"))
        made.refresh()
        made.root.shell("apt-get -q -y install already-there")
        yield made


def install(bench: PackageBench, *names: str) -> None:
    done = bench.driver(*names)
    assert (done.returncode, done.stderr) == (0, "")


def uninstall(bench: PackageBench) -> list[str]:
    """What it said has to stay."""
    done = bench.root.script("uninstall-deb.sh", 5)
    assert (done.returncode, done.stderr) == (0, "")
    lines = bench.root.path(TOLD).read_text().splitlines()
    assert all(bench.version(name) != "580-1" for line in lines if "removed: " in line for name in line.split()[1:])
    return [line.removeprefix("stays: ") for line in lines if not line.startswith("removed: ")]


def added(bench: PackageBench) -> list[str]:
    return bench.root.path(ADDED).read_text().split()


def test_what_came_goes_with_its_dependencies_and_what_was_there_stays(bench):
    install(bench, "nv-driver", "already-there")
    assert added(bench) == ["nv-driver", "nv-library"]
    assert uninstall(bench) == []
    assert bench.root.path(TOLD).read_text() == "removed: nv-driver nv-library\n"
    assert (bench.version("nv-driver"), bench.version("nv-library")) == ("", "")
    assert bench.version("already-there") == "1-1"


def test_what_somebody_else_needs_by_now_stays_and_is_named(bench):
    install(bench, "nv-driver")
    bench.publish(Package("monitor", "1-1", depends="nv-library"))
    bench.root.shell("apt-get -q update; apt-get -q -y install monitor")
    assert uninstall(bench) == ["nv-library, needed by monitor"]
    assert bench.version("nv-driver") == ""
    assert (bench.version("nv-library"), bench.version("monitor")) == ("580-1", "1-1")


def test_of_two_that_somebody_needs_one_of_one_stays(bench):
    bench.publish(Package("nv-tools", "1-1"))
    bench.refresh()
    install(bench, "nv-library", "nv-tools")
    bench.publish(Package("monitor", "1-1", depends="nv-tools | nv-library"))
    bench.root.shell("apt-get -q update; apt-get -q -y install monitor")
    assert uninstall(bench) == ["nv-library, needed by monitor"]
    assert bench.version("nv-library") == "580-1"
    assert bench.version("nv-tools") != "1-1"
    assert bench.version("monitor") == "1-1"


def test_a_kernel_that_the_host_may_boot_stays(bench):
    install(bench, "linux-image-9.9-lab", "nv-driver")
    assert uninstall(bench) == []
    assert bench.version("linux-image-9.9-lab") == "1-1"
    assert bench.version("nv-driver") == ""


def test_a_list_that_a_power_cut_left_unfinished_is_finished_by_the_next_run(bench):
    install(bench, "nv-library")
    # As if the host had lost its power after dpkg was done and before that was written down.
    names = bench.root.shell("dpkg-query -W -f '${binary:Package}\\n' | sed 's/:amd64$//' | sort -u").split()
    bench.root.path(BEFORE).write_text("\n".join(name for name in names if name != "nv-library") + "\n")
    bench.root.path(ADDED).unlink()
    install(bench, "nv-driver")
    assert added(bench) == ["nv-driver", "nv-library"]
    assert not bench.root.path(BEFORE).exists()
    bench.root.path(BEFORE).write_text("\n".join(names) + "\n")
    assert uninstall(bench) == []
    assert (bench.version("nv-driver"), bench.version("nv-library")) == ("", "")


@pytest.mark.parametrize("said", ["", "installed|nv-driver\\n"], ids=["nothing", "a part"])
def test_a_list_that_could_not_be_read_whole_makes_nothing_ours(bench, said):
    broken = f"#!/bin/sh\nprintf '{said}'\nexit 2\n"
    bench.root.program("dpkg-query", broken)
    install(bench, "nv-driver")
    bench.root.path("/usr/local/sbin/dpkg-query").unlink()
    assert uninstall(bench) == []
    assert bench.version("nv-driver") == "580-1"
    assert bench.version("already-there") == "1-1"


def test_without_anything_to_remove_nothing_is(bench):
    assert uninstall(bench) == []
    assert bench.version("already-there") == "1-1"


def test_a_package_that_cannot_be_removed_is_named_and_the_list_stays(bench):
    bench.publish(Package("stubborn", "1-1", scripts={"prerm": "#!/bin/sh\nexit 3\n"}))
    bench.refresh()
    install(bench, "stubborn")
    done = bench.root.script("uninstall-deb.sh", 5)
    assert done.returncode == 1
    assert "stubborn" in done.stderr
    assert added(bench) == ["stubborn"]
