"""The simulation by real apt, with a repository of stand-ins: what is told is what would be done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rackserve.facts.simulation import Simulation
from rackserve.lab.repository import Package, Repository, SigningKey
from rackserve.planning.transaction import SimulatedTransaction
from tests.operations.private_root import PrivateRoot, needs_private_root
from tests.operations.scripting import mirroring

pytestmark = needs_private_root


@pytest.fixture
def root(tmp_path: Path) -> Iterator[PrivateRoot]:
    key = SigningKey(tmp_path / "key")
    published = Repository(tmp_path / "published", key)
    for version in ("575.57.08-1", "580.95.05-1"):
        published.add(Package("nv-driver", version, depends=f"nv-lib (= {version})"))
        published.add(Package("nv-lib", version, fields={"Installed-Size": "2048"}))
    published.add(Package("nv-broken", "1", depends="nv-absent"))
    published.add(Package("other", "1", fields={"Conflicts": "nv-lib (>= 580)"}))
    published.publish()
    key.close()
    with mirroring(tmp_path / "published") as mirror:
        made = PrivateRoot(tmp_path / "root")
        made.path("/etc/apt/sources.list").write_text(f"deb [trusted=yes] {mirror.url} /\n")
        made.shell("apt-get -q update")
        yield made


def ask(root: PrivateRoot, *names: str, downgrade: bool = False) -> SimulatedTransaction:
    done = root.run("sh", "-c", Simulation().command("apt", list(names), ["nv-*"], downgrade=downgrade))
    assert (done.returncode, done.stderr) == (0, "")
    return Simulation().process(done.stdout.splitlines())


def test_apt_tells_what_it_would_install_and_does_nothing(root):
    found = ask(root, "nv-driver")
    assert found.installs == {"nv-driver": "580.95.05-1", "nv-lib": "580.95.05-1"}
    assert found.candidates == dict.fromkeys(("nv-driver", "nv-lib"), ("580.95.05-1", "575.57.08-1"))
    assert (found.upgrades, found.removals, found.installed, found.error) == ({}, (), {}, "")
    assert found.disk_bytes == 2_097_000
    assert found.download_bytes
    assert ask(root, "nv-driver") == found


def test_apt_tells_what_it_would_replace_and_remove(root):
    root.shell("apt-get -q -y install nv-lib=575.57.08-1 other")
    found = ask(root, "nv-driver")
    assert (found.installs, found.upgrades) == ({"nv-driver": "580.95.05-1"}, {"nv-lib": "580.95.05-1"})
    assert found.replaced == found.installed == {"nv-lib": "575.57.08-1"}
    assert found.removals == ("other",)
    root.shell("dpkg --remove other && apt-get -q -y install nv-driver")
    assert ask(root, "nv-driver").changes is False


def test_apt_goes_back_only_when_it_is_meant(root):
    root.shell("apt-get -q -y install nv-driver")
    pin = "Package: nv-*\nPin: version 575.57.08-1\nPin-Priority: 1001\n"
    root.path("/etc/apt/preferences.d/rackserve").write_text(pin)
    assert "downgraded" in ask(root, "nv-driver").error
    found = ask(root, "nv-driver", downgrade=True)
    assert found.upgrades == {"nv-driver": "575.57.08-1", "nv-lib": "575.57.08-1"}
    assert found.replaced == {"nv-driver": "580.95.05-1", "nv-lib": "580.95.05-1"}


def test_apt_names_what_is_on_hold(root):
    root.shell("apt-get -q -y install nv-lib=575.57.08-1 && apt-mark hold nv-lib")
    assert "nv-lib" in ask(root, "nv-lib").error
    assert (
        "nv-driver : Depends: nv-lib (= 580.95.05-1) but 575.57.08-1 is to be installed" in ask(root, "nv-driver").error
    )


def test_apt_says_why_it_cannot(root):
    assert "nv-broken : Depends: nv-absent but it is not installable" in ask(root, "nv-broken").error
    assert ask(root, "nv-nothing").error == "E: Unable to locate package nv-nothing"
    root.path("/etc/apt/preferences.d/rackserve").write_text("Package: nv-*\nPin: version 999*\nPin-Priority: 1001\n\n")
    with root.path("/etc/apt/preferences.d/rackserve").open("a") as file:
        file.write("Package: nv-*\nPin: release *\nPin-Priority: -1\n")
    found = ask(root, "nv-driver")
    assert found.error == "E: Package 'nv-driver' has no installation candidate"
    # What there would have been.
    assert found.candidates["nv-driver"] == ("580.95.05-1", "575.57.08-1")
