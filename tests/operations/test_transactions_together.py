"""Transactions one after the other and at once: one runs, others take its result, and there is a way back."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rackserve.lab.repository import Package
from tests.operations.package_bench import KEPT, PATIENT, UNIT, PackageBench, working_bench
from tests.operations.private_root import finished, needs_private_root, until

pytestmark = needs_private_root
WAITING = "an earlier run's transaction still runs: waiting for it\n"
OLD, NEW, NEWEST = "1:575.57.08-1", "1:580.95.05-1", "1:590.10-1"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[PackageBench]:
    with working_bench(tmp_path) as made:
        yield made


def file_of(version: str) -> str:
    return f"nv-driver_{version.replace(':', '%3a')}_amd64.deb"


# at once


def start(bench: PackageBench, *names: str, beside: int | None = None):
    return bench.root.start_script("driver-deb.sh", 5, "no", "", "", *names, beside=beside)


def slow(bench: PackageBench, ending: str = "") -> None:
    bench.publish(Package("nv-driver", NEW, scripts={"postinst": PATIENT + ending}), Package("nv-lib", NEW))
    bench.refresh()


@pytest.mark.parametrize(("ending", "code"), [("", 0), ("exit 7\n", 1)], ids=["well", "badly"])
def test_a_second_run_waits_for_the_first_and_takes_its_result(bench, ending, code):
    slow(bench, ending)
    first = start(bench, "nv-driver")
    until(lambda: bench.said("postinst"), "the first transaction")
    second = start(bench, "nv-driver", beside=first.pid)
    # It has said that it waits before anything ends.
    assert second.stdout
    assert second.stdout.readline() == WAITING
    bench.go()
    done = [finished(process) for process in (first, second)]
    assert [one.returncode for one in done] == [code, code]
    assert done[0].stderr == done[1].stderr
    assert ("exit status 7" in done[1].stderr) == bool(code)
    # Configured by the first alone; nobody started it again.
    assert bench.said("postinst") == ["configure"]


def test_two_runs_that_begin_at_the_same_moment_run_one_transaction(bench):
    slow(bench)
    bench.go()
    host = bench.root.start("sleep", "100")
    merged = bench.root.folder / "merged"
    until(lambda: Path(f"/proc/{host.pid}/root").readlink() == merged, "the host")
    done = [finished(process) for process in [start(bench, "nv-driver", beside=host.pid) for _ in range(2)]]
    host.terminate()
    finished(host)
    assert [(one.returncode, one.stderr) for one in done] == [(0, ""), (0, "")]
    assert sorted(one.stdout for one in done) == ["", WAITING]
    assert bench.said("postinst") == ["configure"]


def test_a_run_that_has_something_else_to_do_does_it_afterwards(bench):
    slow(bench)
    first = start(bench, "nv-driver")
    until(lambda: bench.said("postinst"), "the first transaction")
    second = start(bench, "nv-lib", beside=first.pid)
    assert second.stdout
    assert second.stdout.readline() == WAITING
    bench.go()
    assert [finished(process).returncode for process in (first, second)] == [0, 0]
    assert [bench.version(name) for name in ("nv-driver", "nv-lib")] == [NEW, NEW]


def test_a_transaction_goes_on_without_the_run_that_began_it(bench):
    slow(bench)
    first = start(bench, "nv-driver")
    until(lambda: bench.said("postinst"), "the first transaction")
    unit = int(bench.root.path(UNIT).read_text())
    # All of it but the unit, which is a child of PID 1 on a host.
    os.killpg(first.pid, signal.SIGKILL)
    finished(first)
    second = start(bench, "nv-driver", beside=unit)
    assert second.stdout
    assert second.stdout.readline() == WAITING
    bench.go()
    done = finished(second)
    assert (done.returncode, done.stderr) == (0, "")
    assert bench.said("postinst") == ["configure"]
    assert bench.version("nv-driver") == NEW


def test_a_result_of_yesterday_is_not_taken_for_one_of_today(bench):
    bench.publish(Package("nv-driver", NEW))
    bench.refresh()
    assert bench.driver("nv-driver").returncode == 0
    bench.root.shell("dpkg --purge nv-driver")
    assert bench.driver("nv-driver").returncode == 0
    assert bench.version("nv-driver") == NEW


def test_a_transaction_that_cannot_begin_is_not_explained_by_an_earlier_one(bench):
    bench.refresh()
    assert "nv-nothing" in bench.driver("nv-nothing").stderr
    bench.root.program("systemd-run", "#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n")
    done = bench.driver("nv-driver")
    assert done.returncode == 1
    assert "Failed to connect to bus" in done.stderr
    assert "nv-nothing" not in done.stderr


# the way back


def replace(bench: PackageBench, old: str, new: str, **values: bool) -> str:
    """What the operator is told after one version took the place of another."""
    done = bench.driver("nv-driver", replaced=f"nv-driver={old}", brought=f"nv-driver={new}", **values)
    assert (done.returncode, done.stderr) == (0, "")
    assert bench.version("nv-driver") == new
    return done.stdout


@pytest.fixture
def replaceable(bench: PackageBench) -> PackageBench:
    """The older version installed, as by somebody else, and the newer one there to be had."""
    bench.publish(Package("nv-driver", OLD))
    bench.root.shell("apt-get -q update && apt-get -q -y install nv-driver")
    bench.publish(Package("nv-driver", NEW))
    bench.refresh()
    return bench


def test_the_way_back_that_is_told_is_one(replaceable):
    bench = replaceable
    told = replace(bench, OLD, NEW)
    assert told == f"apt-get install --allow-downgrades {KEPT}/{file_of(OLD)}\n"
    assert bench.kept() == {file_of(OLD), file_of(NEW)}
    # Long after the repository has dropped it.
    bench.publish(Package("nv-driver", NEW), alone=True)
    bench.refresh()
    bench.root.shell("apt-get clean")
    bench.root.run(*shlex.split(told), "-y")
    assert bench.version("nv-driver") == OLD


def test_what_apt_has_not_kept_is_fetched_while_it_is_there(replaceable):
    bench = replaceable
    bench.root.shell("apt-get clean")
    assert file_of(OLD) in replace(bench, OLD, NEW)
    assert bench.kept() == {file_of(OLD), file_of(NEW)}


def test_without_the_old_files_there_is_no_way_back_to_tell(replaceable):
    bench = replaceable
    bench.root.shell("apt-get clean")
    bench.publish(Package("nv-driver", NEW), alone=True)
    bench.refresh()
    assert replace(bench, OLD, NEW) == ""
    assert bench.kept() == {file_of(NEW)}


def test_two_versions_are_kept(replaceable):
    bench = replaceable
    replace(bench, OLD, NEW)
    bench.publish(Package("nv-driver", NEWEST))
    bench.refresh()
    assert replace(bench, NEW, NEWEST) == f"apt-get install --allow-downgrades {KEPT}/{file_of(NEW)}\n"
    assert bench.kept() == {file_of(NEW), file_of(NEWEST)}


def test_the_two_are_the_one_that_is_there_and_the_one_that_was(replaceable):
    bench = replaceable
    replace(bench, OLD, NEW)
    pin = prefer(bench, OLD)
    replace(bench, NEW, OLD, downgrade=True)
    pin.unlink()
    bench.publish(Package("nv-driver", NEWEST))
    bench.refresh()
    assert file_of(OLD) in replace(bench, OLD, NEWEST)
    assert bench.kept() == {file_of(OLD), file_of(NEWEST)}


def prefer(bench: PackageBench, version: str) -> Path:
    path = bench.root.path("/etc/apt/preferences.d/rackserve")
    path.write_text(f"Package: nv-*\nPin: version {version}\nPin-Priority: 1001\n")
    return path


def test_an_older_version_is_installed_only_when_it_is_meant(bench):
    bench.publish(Package("nv-driver", NEW), Package("nv-driver", OLD))
    bench.refresh()
    assert bench.driver("nv-driver").returncode == 0
    prefer(bench, OLD)
    done = bench.driver("nv-driver")
    assert done.returncode == 1
    assert "downgraded" in done.stderr
    assert bench.version("nv-driver") == NEW
    assert file_of(NEW) in replace(bench, NEW, OLD, downgrade=True)


def test_a_library_for_another_architecture_is_kept_under_its_own_name(bench):
    bench.root.shell("dpkg --add-architecture i386")
    for version in (OLD, NEW):
        bench.publish(Package("nv-lib", version, architecture="i386"))
    bench.root.shell(f"apt-get -q update && apt-get -q -y install nv-lib:i386={OLD}")
    done = bench.driver("nv-lib:i386", replaced=f"nv-lib:i386={OLD}", brought=f"nv-lib:i386={NEW}")
    file = f"nv-lib_{OLD.replace(':', '%3a')}_i386.deb"
    assert done.stdout == f"apt-get install --allow-downgrades {KEPT}/{file}\n"
    assert file in bench.kept()
