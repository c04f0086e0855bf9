"""A dead mirror, wrong checksum, full disk, held package lock or wrong tag is one clear error, on that host alone.

Every trouble has a host of its own, and one host has none: a single run meets them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from rackserve.lab.pci import PciDevice
from tests.lab.conftest import LabFactory
from tests.lab.deploying import Run, Site, main_pid, serves

pytestmark = pytest.mark.lab

NEW_REVISION = "1" * 40
H100 = "10de:2331"
WELL = "h7"
MODEL, PACKAGES, TAG = "Model in place", "Packages for llama.cpp installed", "Host is what its tag says"
WITHOUT_CURL = "dpkg --remove --force-depends curl"
LOCKED = "import fcntl,time; f=open('/var/lib/dpkg/lock-frontend','w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(600)"

# Takes the trouble away again.
Undo = Callable[[], object]


def dead_model_mirror(site: Site, host: str) -> Undo:
    site.hosts[host]["model_hub"] = f"http://{site.lab.address(WELL)}:9"
    return lambda: None


def wrong_checksum(site: Site, host: str) -> Undo:
    catalogue = Path(site.hosts[host]["catalog"][0])
    wrong = catalogue.with_name("wrong.toml")
    wrong.write_text(catalogue.read_text().replace(right_checksum(site), "f" * 64))
    site.hosts[host]["catalog"] = [str(wrong)]
    return lambda: None


def right_checksum(site: Site) -> str:
    return Path(site.hosts[WELL]["catalog"][0]).read_text().partition('sha256 = "')[2][:64]


def full_disk(site: Site, host: str) -> Undo:
    site.lab.ssh(host, "mkdir -p /srv/models/.staging && mount -t tmpfs -o size=8m tmpfs /srv/models/.staging")
    return lambda: site.lab.ssh(host, "umount /srv/models/.staging")


def held_package_lock(site: Site, host: str) -> Undo:
    site.hosts[host]["apt_lock_timeout"] = 3
    site.lab.ssh(host, f'{WITHOUT_CURL} && systemd-run --unit=lock-holder python3 -c "{LOCKED}"')
    return lambda: site.lab.ssh(host, "systemctl stop lock-holder")


def dead_package_mirror(site: Site, host: str) -> Undo:
    dead = f"deb [trusted=yes] http://{site.lab.address(WELL)}:9 forky main"
    away = f"mkdir /root/apt && mv /etc/apt/sources.list* /root/apt/ && echo '{dead}' > /etc/apt/sources.list"
    site.lab.ssh(host, f"{WITHOUT_CURL}; {away}")
    return lambda: site.lab.ssh(host, "rm /etc/apt/sources.list; mv /root/apt/* /etc/apt/; rmdir /root/apt")


def wrong_tag(site: Site, host: str) -> Undo:
    vendor, device = (int(part, 16) for part in H100.split(":"))
    site.lab.set_pci(host, [PciDevice("0000:41:00.0", vendor, device)])
    return lambda: site.lab.set_pci(host, [])


@dataclass(frozen=True)
class Trouble:
    """What befalls a host, the one operation that fails there, and the words that say why."""

    befall: Callable[[Site, str], Undo]
    operation: str
    sentences: tuple[str, ...]


# One for each host.
TROUBLES = {
    "h1": Trouble(dead_model_mirror, MODEL, ("not fetched: http://", "Could")),
    "h2": Trouble(wrong_checksum, MODEL, (f", expected {'f' * 64}", "not used: http://")),
    "h3": Trouble(full_disk, MODEL, ("/srv/models/.staging has 8 MiB free, 20 MiB are needed",)),
    "h4": Trouble(held_package_lock, PACKAGES, ("packages not installed: curl", "lock was locked by")),
    "h5": Trouble(dead_package_mirror, PACKAGES, ("packages not installed: curl", "E: Failed to fetch")),
    "h6": Trouble(wrong_tag, TAG, (f"gpu_tag says cpu, the PCI bus has {H100} (tag h100-pcie): correct the tag",)),
}
HOSTS = pytest.mark.parametrize("host", TROUBLES, ids=[trouble.befall.__name__ for trouble in TROUBLES.values()])


@dataclass
class Met:
    """Hosts that served, each in its trouble, and the run that met them so."""

    site: Site
    before: dict[str, tuple[str, str]]
    run: Run
    undo: list[Undo]


@pytest.fixture(scope="module")
def met(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Met:
    folder = tmp_path_factory.mktemp("trouble")
    lab = lab_factory("trouble")
    lab.up(len(TROUBLES) + 1, "forky")
    site = Site(lab, folder)
    run = site.deploy()
    assert run.code == 0, run.text
    newer_model(site, folder)
    undo = [trouble.befall(site, host) for host, trouble in TROUBLES.items()]
    before = {host: main_pid(lab, host) for host in TROUBLES}
    return Met(site, before, site.deploy(), undo)


def newer_model(site: Site, folder: Path) -> None:
    """A newer revision of the model in the depot, which every host is to have."""
    catalogue = Path(site.hosts[WELL]["catalog"][0])
    old = next((site.lab.depot_dir / "rackserve" / "tiny-random" / "resolve").glob("0*/*.gguf"))
    new = old.parent.parent / NEW_REVISION / old.name
    new.parent.mkdir()
    new.write_bytes(old.read_bytes())
    changed = folder / "catalog.toml"
    changed.write_text(catalogue.read_text().replace("0" * 40, NEW_REVISION))
    for data in site.hosts.values():
        data["catalog"] = [str(changed)]


def planned_model(site: Site, host: str) -> bool:
    """Whether the process that serves was started with the newer model."""
    return NEW_REVISION in site.lab.ssh(host, f"tr '\\0' ' ' </proc/{main_pid(site.lab, host)[0]}/cmdline").stdout


@HOSTS
def test_it_is_one_clear_error_on_that_host_alone(met: Met, host: str) -> None:
    trouble, run = TROUBLES[host], met.run
    assert run.code == 1
    assert [name.partition(" | ")[2] for name in run.failed(host)] == [trouble.operation], run.text
    for sentence in trouble.sentences:
        assert sentence in run.said_of(host)
        alike = {other for other, its in TROUBLES.items() if sentence in its.sentences}
        assert {other for other in met.site.hosts if sentence in run.said_of(other)} == alike
    assert "Traceback" not in run.text


@HOSTS
def test_what_it_served_before_still_serves(met: Met, host: str) -> None:
    assert main_pid(met.site.lab, host) == met.before[host]
    assert serves(met.site.lab, host)


def test_the_host_without_trouble_gets_all_it_was_asked_for(met: Met) -> None:
    assert met.run.failed(WELL) == []
    assert serves(met.site.lab, WELL)
    assert planned_model(met.site, WELL)


def test_nothing_is_left_of_the_file_with_the_wrong_checksum(met: Met) -> None:
    found = met.site.lab.ssh("h2", f"find /srv/models -path '*{NEW_REVISION}*' -o -path '*/.staging/*'").stdout.split()
    assert [path for path in found if not path.endswith(".lock")] == []


def test_without_their_troubles_all_of_them_converge(met: Met) -> None:
    for undo in met.undo:
        undo()
    met.undo.clear()
    for data in met.site.hosts.values():
        data |= {key: met.site.hosts[WELL][key] for key in ("catalog", "model_hub")}
    mended = met.site.deploy()
    assert mended.code == 0, mended.text
    assert [host for host in met.site.hosts if mended.failed(host)] == []
    assert [host for host in met.site.hosts if not planned_model(met.site, host)] == []
