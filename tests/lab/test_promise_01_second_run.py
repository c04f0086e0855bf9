"""A second run changes nothing and restarts nothing."""

from __future__ import annotations

import pytest

from rackserve.lab.lab import Lab
from tests.lab.conftest import LabFactory
from tests.lab.deploying import LISTING, Site

pytestmark = pytest.mark.lab

# Every unit that runs, ours or not, with what is another after each start. The health check is one that comes and goes.
UNITS = (
    "systemctl list-units --no-legend --plain --state=running,listening,waiting --type=service,timer,socket | "
    "awk '$1 !~ /^(rackserve-health@.*service|user@|user-runtime-dir@|session-)/ {print $1}' | "
    "xargs systemctl show -p Id,InvocationID,MainPID,ExecMainStartTimestampMonotonic"
)


@pytest.fixture(scope="module")
def site(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A host with two services, one with a key that it made itself and one with the operator's, after a first run."""
    folder = tmp_path_factory.mktemp("second")
    lab = lab_factory("second")
    lab.up(1, "forky")
    made = Site(lab, folder)
    (folder / "key").write_text("sk-operators-own\n")
    services = made.hosts["h1"]["services"]
    own = {"name": "second", "max_model_len": 512, "port": 8002, "api_key_file": str(folder / "key")}
    services.append(services[0] | own)
    run = made.deploy()
    assert run.code == 0, run.text
    return made


def units(lab: Lab) -> str:
    return lab.ssh("h1", UNITS).stdout


def test_second_run_changes_nothing_and_restarts_nothing(site: Site) -> None:
    files, running = site.lab.ssh("h1", LISTING).stdout, units(site.lab)
    assert all(name in running for name in ("rackserve@chat.service", "rackserve@second.service", "ssh"))
    again = site.deploy()
    assert again.code == 0, again.text
    assert again.changed("h1") == []
    assert len(again.outcomes) == 9
    assert units(site.lab) == running
    assert site.lab.ssh("h1", LISTING).stdout == files
