"""Promise 3: a run that is killed, or a host that loses power, at any operation: running again converges.

Each deploy is broken off in several operations in a row here, by run and by host; each of them for itself, and fifty
moments drawn by lot, are tried by `make test-all`.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from rackserve.lab.gpu import GpuChoice
from rackserve.lab.lab import Lab
from tests.lab.conftest import LabFactory
from tests.lab.deploying import Run, Site, serves
from tests.lab.gpu_sites import DRIVERS, NO_WAIT, POSTINST, UNINSTALL
from tests.lab.interrupting import Act, all_at_once, deploy_broken, kill, power_cut, starting, when

pytestmark = pytest.mark.lab

SERVE = "deploys/serve.py"
SEEDS = 50
LONGEST_DELAY_S = 2.0
# A package's script that takes until the test says so, for a minute at most.
UNTIL_TOLD = "touch /run/half-way; for i in $(seq 600); do [ ! -e /run/go ] || break; sleep 0.1; done"
IN_DPKG = "pgrep -x dpkg >/dev/null"
HALF_WAY = "[ -e /run/half-way ]"
# Some package of rackserve's that takes its time when it is removed, the first time.
SLOW_REMOVAL = """for name in {names}; do [ -e /var/lib/dpkg/info/$name.list ] && break; done
script=/var/lib/dpkg/info/$name.prerm
[ -e $script ] || {{ printf '#!/bin/sh\\nexit 0\\n' >$script; chmod 755 $script; }}
sed -i '2i [ -e /root/slept ] || {{ touch /root/slept /run/half-way; sleep 6; }}' $script"""
PACKAGES = "dpkg-query -W -f '${db:Status-Abbrev}${Package}\\n' | sed -n 's/^ii //p'"
OURS = "ls -d /etc/rackserve /opt/rackserve /var/*/rackserve /usr/libexec/rackserve 2>/dev/null; true"
SERVICES_GONE = "Uninstall | Services gone"
PACKAGES_GONE = "Uninstall | Packages of rackserve's gone"
ALL_GONE = "Uninstall | Repositories, units, releases and helpers gone"


@dataclass(frozen=True)
class Job:
    """A deploy: those of its operations that change something, and how a host is when it has ended well."""

    script: str
    operations: tuple[str, ...]
    done: Callable[[Lab, str], bool]


def has_its_driver(lab: Lab, host: str) -> bool:
    return lab.ssh(host, "/usr/libexec/rackserve/gpu-ready --check", check=False).returncode == 0


def has_nothing_of_ours(lab: Lab, host: str) -> bool:
    return lab.ssh(host, OURS).stdout == ""


SERVING = Job(
    SERVE,
    (
        "llama.cpp | Packages for llama.cpp installed",
        "llama.cpp | Release of llama-server current",
        "Models | Model in place",
        "Services | Service user present",
        "Services | API key in place",
        "Services | Units and helpers as planned",
        "Services | Service serving its plan",
    ),
    serves,
)
DRIVING = Job(
    DRIVERS,
    (
        "Driver | Package repositories as planned",
        "Driver | Pins and guards against upgrades as planned",
        "Driver | Driver packages installed",
        "Driver | Modules and checks as planned",
        "Driver | Driver loaded",
        "Driver | GPUs ready",
    ),
    has_its_driver,
)
SERVICES_REMOVAL = Job(UNINSTALL, (SERVICES_GONE, PACKAGES_GONE, ALL_GONE), has_nothing_of_ours)
DRIVERS_REMOVAL = Job(UNINSTALL, (PACKAGES_GONE, ALL_GONE), has_nothing_of_ours)
KINDS = {"serve": SERVING, "drivers": DRIVING, "uninstall services": SERVICES_REMOVAL, "uninstall": DRIVERS_REMOVAL}


class Fleet:
    """Two virgin hosts, which a deploy gets onto and a removal leaves."""

    def __init__(self, site: Site, deploy: Job, removal: Job) -> None:
        self.site, self.lab, self.deploy, self.removal = site, site.lab, deploy, removal
        self.packages = {name: self.lab.ssh(name, PACKAGES).stdout for name in site.hosts}
        self.snapshots = {"virgin"}
        for name in site.hosts:
            self.lab.snapshot(name, "virgin")

    def before(self, job: Job, *names: str) -> None:
        """Have these hosts, and no others, in the inventory, as they are before the job: virgin, or deployed."""
        self.site.reset()
        self.site.hosts = {name: self.site.hosts[name] for name in names}
        if job is self.removal and "deployed" not in self.snapshots:
            self.lab.restore("virgin", *names)
            run = self.site.deploy(script=self.deploy.script)
            assert run.code == 0, run.text
            for name in names:
                self.lab.snapshot(name, "deployed")
            self.snapshots.add("deployed")
        else:
            self.lab.restore("deployed" if job is self.removal else "virgin", *names)

    def broken_off(self, job: Job, acts: Mapping[str, Act]) -> Run:
        """A run of the job to which this happens, and all hosts up again after it."""
        run = deploy_broken(self.site, acts, job.script)
        self.boot()
        return run

    def slow_removal(self) -> None:
        """Have dpkg be long enough at a removal to be found there."""
        for name in self.site.hosts:
            brought = set(self.lab.ssh(name, PACKAGES).stdout.split()) - set(self.packages[name].split())
            self.lab.ssh(name, SLOW_REMOVAL.format(names=" ".join(sorted(brought))))

    def boot(self) -> None:
        for name in self.site.hosts:
            self.lab.boot(name)

    def converges(self, job: Job) -> None:
        """Another run ends well, and one more finds nothing to do."""
        again = self.site.deploy(script=job.script)
        assert again.code == 0, again.text
        for name in self.site.hosts:
            assert job.done(self.lab, name)
            assert self.lab.ssh(name, "dpkg --audit").stdout == ""
            if job is self.removal:
                assert self.lab.ssh(name, PACKAGES).stdout == self.packages[name]
        once_more = self.site.deploy(script=job.script)
        assert once_more.code == 0, once_more.text
        assert {name: once_more.changed(name) for name in self.site.hosts} == {name: [] for name in self.site.hosts}


@pytest.fixture(scope="module")
def serving(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    lab = lab_factory("interrupted")
    lab.up(2, "forky")
    return Fleet(Site(lab, tmp_path_factory.mktemp("serving")), SERVING, SERVICES_REMOVAL)


@pytest.fixture(scope="module")
def driving(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    lab = lab_factory("interruptedgpu")
    lab.up(2, "bookworm", gpus=GpuChoice("l40s", 2))
    for host in lab.hosts():
        # Half a driver is waited for at a boot.
        lab.ssh(host.name, NO_WAIT)
    return Fleet(Site(lab, tmp_path_factory.mktemp("driving")), DRIVING, DRIVERS_REMOVAL)


# ------------------------------------------------------------------------ several breaks in a row, on two hosts at once


def test_serving_is_reached_through_kills_and_power_cuts(serving: Fleet) -> None:
    lab = serving.lab
    packages, release, *_, served = map(starting, SERVING.operations)
    serving.before(SERVING, "h1", "h2")
    serving.broken_off(SERVING, {packages: when(IN_DPKG, lab, ["h1"], all_at_once(lab, "h1", 0.3))})
    serving.broken_off(SERVING, {release: all_at_once(lab, "h2")})
    serving.broken_off(SERVING, {served: all_at_once(lab, "h1", 0.25)})
    serving.converges(SERVING)


def test_services_are_gone_through_kills_and_power_cuts(serving: Fleet) -> None:
    lab = serving.lab
    serving.before(SERVICES_REMOVAL, "h1", "h2")
    services, packages, everything = map(starting, SERVICES_REMOVAL.operations)
    serving.slow_removal()
    serving.broken_off(SERVICES_REMOVAL, {services: all_at_once(lab, "h1")})
    serving.broken_off(SERVICES_REMOVAL, {packages: when(HALF_WAY, lab, ["h2"], all_at_once(lab, "h2", 0))})
    serving.broken_off(SERVICES_REMOVAL, {everything: all_at_once(lab, "h1", 0.05)})
    serving.converges(SERVICES_REMOVAL)


def test_a_run_that_broke_off_in_a_transaction_is_picked_up(driving: Fleet) -> None:
    lab = driving.lab
    driving.before(DRIVING, "h1", "h2")
    for name in ("h1", "h2"):
        lab.ssh(name, POSTINST.format(UNTIL_TOLD))
    *_, packages, _, loaded, ready = map(starting, DRIVING.operations)
    deploy_broken(
        driving.site, {packages: when(HALF_WAY, lab, ["h1", "h2"], all_at_once(lab, "h1", 0))}, DRIVING.script
    )
    # It does not hang on the connection.
    assert lab.ssh("h2", "systemctl show -p ActiveState --value rackserve-packages").stdout.startswith("activ")
    driving.boot()
    assert lab.ssh("h1", "dpkg --audit").stdout != ""
    for name in ("h1", "h2"):
        lab.ssh(name, "rm /etc/lab-postinst")

    def goes_on(_: subprocess.Popen[str]) -> None:
        lab.ssh("h2", "touch /run/go")

    # The next run waits for it, and dies further on.
    driving.broken_off(DRIVING, {packages: goes_on, loaded: all_at_once(lab, "h2")})
    driving.broken_off(DRIVING, {ready: all_at_once(lab, "h1", 0.05)})
    driving.converges(DRIVING)


def test_a_removal_that_lost_its_power_is_finished_by_the_next_run(driving: Fleet) -> None:
    lab = driving.lab
    driving.before(DRIVERS_REMOVAL, "h1", "h2")
    driving.slow_removal()
    gone, everything = map(starting, DRIVERS_REMOVAL.operations)
    driving.broken_off(DRIVERS_REMOVAL, {gone: when(HALF_WAY, lab, ["h1", "h2"], all_at_once(lab, "h1", 0))})
    driving.broken_off(DRIVERS_REMOVAL, {everything: all_at_once(lab, "h2", 0.05)})
    driving.converges(DRIVERS_REMOVAL)


# --------------------------------------------------------------------------------- each operation, and moments by lot


def fleet_of(request: pytest.FixtureRequest, kind: str) -> Fleet:
    fleet: Fleet = request.getfixturevalue("serving" if KINDS[kind] in {SERVING, SERVICES_REMOVAL} else "driving")
    return fleet


EVERYWHERE = [(kind, operation) for kind, job in KINDS.items() for operation in job.operations]


@pytest.mark.full
@pytest.mark.parametrize(("kind", "operation"), EVERYWHERE)
def test_run_killed_in_an_operation(request: pytest.FixtureRequest, kind: str, operation: str) -> None:
    fleet, job = fleet_of(request, kind), KINDS[kind]
    fleet.before(job, "h1")
    run = fleet.broken_off(job, {starting(operation): kill(0.05 if operation == ALL_GONE else 0.25)})
    assert run.code == -9
    fleet.converges(job)


@pytest.mark.full
@pytest.mark.parametrize(("kind", "operation"), EVERYWHERE)
def test_power_cut_in_an_operation(request: pytest.FixtureRequest, kind: str, operation: str) -> None:
    fleet, job = fleet_of(request, kind), KINDS[kind]
    fleet.before(job, "h1")
    cut = power_cut(fleet.lab, "h1", 0.05 if operation == ALL_GONE else 0.15)
    if "ackages" in operation and job is SERVING:
        cut = when(IN_DPKG, fleet.lab, ["h1"], power_cut(fleet.lab, "h1", 0.3))
    assert fleet.broken_off(job, {starting(operation): cut}).code == 1
    fleet.converges(job)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_run_that_breaks_off_at_any_moment_is_picked_up(request: pytest.FixtureRequest, seed: int) -> None:
    drawn = random.Random(seed)  # noqa: S311 (the same moments for the same seed)
    kind, operation = drawn.choice(EVERYWHERE)
    delay, powerless = drawn.uniform(0, LONGEST_DELAY_S), drawn.random() < 0.5
    print(f"seed {seed}: {operation}, {'power cut' if powerless else 'killed'} after {delay:.2f} s")  # noqa: T201
    fleet, job = fleet_of(request, kind), KINDS[kind]
    fleet.before(job, "h1")
    fleet.broken_off(job, {starting(operation): power_cut(fleet.lab, "h1", delay) if powerless else kill(delay)})
    fleet.converges(job)
