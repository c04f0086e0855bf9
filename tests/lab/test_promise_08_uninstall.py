"""Uninstalling leaves the files and packages that were there before, models, and what it names."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.lab.conftest import LabFactory
from tests.lab.deploying import Run, Site, differences, everything, serves

pytestmark = pytest.mark.lab

UNINSTALL = "deploys/uninstall.py"
NEEDED = "llama.cpp-tools"
# Somebody's own, in every folder that rackserve writes to and that is not its own.
OWN_FILES = (
    "/etc/systemd/system/own.service /etc/systemd/system/own.service.d/own.conf /opt/own/file /srv/models/own.gguf "
    "/usr/libexec/own /etc/apt/sources.list.d/own.list /etc/apt/keyrings/own.gpg /var/lib/own /var/cache/own"
)
# Comes after rackserve, and cannot do without a package that came with it.
CONTROL = "Package: monitor\\nVersion: 1\\nArchitecture: all\\nMaintainer: n <n@n.example>\\nDescription: x\\n"
MONITOR = (
    f"mkdir -p /tmp/m/DEBIAN && printf '{CONTROL}Depends: {NEEDED}\\n' >/tmp/m/DEBIAN/control && "
    "dpkg-deb -b /tmp/m /tmp/m.deb && dpkg -i /tmp/m.deb"
)


@dataclass
class Removed:
    """A host before rackserve came and after it went, and the run that took it off."""

    site: Site
    run: Run
    before: dict[str, list[str]]
    after: dict[str, list[str]]


@pytest.fixture(scope="module")
def removed(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Removed:
    lab = lab_factory("uninstall")
    lab.up(1, "forky")
    site = Site(lab, tmp_path_factory.mktemp("uninstall"))
    lab.ssh("h1", f"for f in {OWN_FILES}; do mkdir -p $(dirname $f); : >$f; done; systemctl daemon-reload")
    before = everything(lab, "h1")
    run = site.deploy()
    assert run.code == 0, run.text
    assert len(differences(before, everything(lab, "h1"))) == len(before)
    run = site.deploy(script=UNINSTALL)
    assert run.code == 0, run.text
    return Removed(site, run, before, everything(lab, "h1"))


def test_uninstall_leaves_what_was_there_before_and_models_only(removed: Removed) -> None:
    came_and_went = differences(removed.before, removed.after)
    assert [line for lines in came_and_went.values() for line in lines if "/srv/models" not in line] == []
    assert [line for lines in came_and_went.values() for line in lines if line.startswith("-")] == []
    assert any(line.endswith(".gguf") for line in came_and_went["contents"])
    running = "systemctl list-units --all --no-legend 'rackserve*'; pgrep llama; true"
    assert removed.site.lab.ssh("h1", running).stdout == ""


def test_uninstalling_again_changes_nothing(removed: Removed) -> None:
    assert removed.site.deploy(script=UNINSTALL).changed("h1") == []


def test_a_package_that_another_needs_by_now_stays_and_is_named(removed: Removed) -> None:
    """And a host that rackserve was taken off can have it again."""
    site = removed.site
    again = site.deploy()
    assert again.code == 0, again.text
    assert serves(site.lab, "h1")
    site.lab.ssh("h1", MONITOR)
    run = site.deploy(script=UNINSTALL)
    assert run.code == 0, run.text
    assert f"{NEEDED}, needed by monitor" in run.said_of("h1")
    left = differences(removed.after, everything(site.lab, "h1"))
    brought = {line.split()[1] for line in left["packages"]}
    assert {"monitor", NEEDED} <= brought
    for package in brought - {"monitor"}:
        assert "Remv monitor " in site.lab.ssh("h1", f"apt-get -s remove {package}").stdout
