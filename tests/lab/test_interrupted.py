"""Whatever dies, and whenever: running again converges."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest

from tests.lab.conftest import LabFactory
from tests.lab.deploying import Site, kill_after, serves

pytestmark = pytest.mark.lab

# By number, the operations of a first run that change something; the other two only look.
CHANGING = {
    1: "Packages for llama.cpp installed",
    2: "Release of llama-server current",
    3: "Model in place",
    5: "Service user present",
    6: "API key in place",
    7: "Units and helpers as planned",
    8: "Service serving its plan",
}
OPERATIONS = 9


@pytest.fixture(scope="module")
def fleet(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A virgin host for every operation and way to die: h1 to h7 lose their run, h8 to h14 their power."""
    lab = lab_factory("interrupted")
    lab.up(2 * len(CHANGING), "forky")
    return Site(lab, tmp_path_factory.mktemp("interrupted"))


def only(site: Site, host: str) -> None:
    site.reset()
    site.hosts = {host: site.hosts[host]}


def converges(site: Site, host: str) -> None:
    """A second run ends well, a third finds nothing to do."""
    again = site.deploy()
    assert again.code == 0, again.text
    assert serves(site.lab, host)
    assert site.deploy().changed(host) == []


@pytest.mark.parametrize(("index", "number"), list(enumerate(CHANGING, start=1)), ids=CHANGING.values())
def test_run_killed_in_an_operation(fleet: Site, index: int, number: int) -> None:
    host = f"h{index}"
    only(fleet, host)
    name, run = fleet.deploy_until(number, kill_after(0.25))
    assert name.endswith(CHANGING[number])
    assert run.code == -9
    assert len(run.outcomes) < OPERATIONS or number == OPERATIONS - 1
    converges(fleet, host)


@pytest.mark.parametrize(("index", "number"), list(enumerate(CHANGING, start=8)), ids=CHANGING.values())
def test_power_cut_in_an_operation(fleet: Site, index: int, number: int) -> None:
    host = f"h{index}"
    only(fleet, host)
    name, run = fleet.deploy_until(number, power_cut(fleet, host, in_dpkg=number == 1))
    assert name.endswith(CHANGING[number])
    assert run.code == 1
    fleet.lab.boot(host)
    fleet.lab.wait(host)
    converges(fleet, host)


def power_cut(site: Site, host: str, *, in_dpkg: bool) -> Callable[[subprocess.Popen[str]], None]:
    """Cut the power of the host; with `in_dpkg`, while dpkg is unpacking, which leaves packages half installed."""

    def act(_: subprocess.Popen[str]) -> None:
        if in_dpkg:
            site.lab.ssh(host, "until pgrep -x dpkg >/dev/null; do sleep 0.05; done; sleep 0.3", timeout=120)
        else:
            time.sleep(0.15)
        site.lab.kill(host)

    return act
