"""One host in trouble: it alone fails, with one clear sentence, and what it served before it still serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rackserve.lab.pci import PciDevice
from tests.lab.conftest import LabFactory
from tests.lab.deploying import Run, Site, main_pid, serves

pytestmark = pytest.mark.lab

NEW_REVISION = "1" * 40
H100 = "10de:2331"


@pytest.fixture(scope="module")
def deployed(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Two hosts that serve: h1 is the one that gets into trouble, h2 the one that must not notice."""
    lab = lab_factory("faults")
    lab.up(2, "forky")
    site = Site(lab, tmp_path_factory.mktemp("faults"))
    run = site.deploy()
    assert run.code == 0, run.text
    return site


@pytest.fixture
def site(deployed: Site) -> Iterator[Site]:
    yield deployed
    deployed.reset()
    mended = deployed.deploy()
    assert mended.code == 0, mended.text
    assert mended.failed("h1") == []


@pytest.fixture
def new_model(site: Site, tmp_path: Path) -> Path:
    """A newer revision of the model in the depot, and the catalogue that names it."""
    catalogue = Path(site.hosts["h1"]["catalog"][0])
    old = next((site.lab.depot_dir / "rackserve" / "tiny-random" / "resolve").glob("0*/*.gguf"))
    new = old.parent.parent / NEW_REVISION / old.name
    new.parent.mkdir(exist_ok=True)
    new.write_bytes(old.read_bytes())
    changed = tmp_path / "catalog.toml"
    changed.write_text(catalogue.read_text().replace("0" * 40, NEW_REVISION))
    site.lab.ssh("h1", f"rm -rf /srv/models/*@{NEW_REVISION} /srv/models/.staging")
    for data in site.hosts.values():
        data["catalog"] = [str(changed)]
    return changed


def refused(site: Site, operation: str, *sentences: str) -> Run:
    """Deploy; h1 fails in this operation with these words and serves on, h2 does all it was asked to."""
    before = main_pid(site.lab, "h1")
    run = site.deploy()
    assert run.code == 1
    assert [name.partition(" | ")[2] for name in run.failed("h1")] == [operation], run.text
    assert run.failed("h2") == []
    for sentence in sentences:
        assert sentence in run.said_of("h1")
        assert sentence not in run.said_of("h2")
    assert "Traceback" not in run.text
    assert main_pid(site.lab, "h1") == before
    assert serves(site.lab, "h1")
    assert serves(site.lab, "h2")
    return run


def test_dead_model_mirror(site: Site, new_model: Path) -> None:
    assert new_model.is_file()
    site.hosts["h1"]["model_hub"] = f"http://{site.lab.address('h2')}:9"
    refused(site, "Model in place", "not fetched: http://", "Could")


def test_wrong_checksum_of_a_model(site: Site, new_model: Path, tmp_path: Path) -> None:
    text = new_model.read_text()
    right = text.partition('sha256 = "')[2][:64]
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(text.replace(right, "f" * 64))
    site.hosts["h1"]["catalog"] = [str(wrong)]
    refused(site, "Model in place", f"SHA-256 is {right}, expected {'f' * 64}")
    found = site.lab.ssh("h1", f"find /srv/models -name '*.gguf' -path '*{NEW_REVISION}*'; ls -A /srv/models/.staging")
    assert [line for line in found.stdout.split() if not line.endswith(".lock")] == []


def test_full_disk(site: Site, new_model: Path) -> None:
    assert new_model.is_file()
    site.lab.ssh("h1", "mkdir -p /srv/models/.staging && mount -t tmpfs -o size=8m tmpfs /srv/models/.staging")
    try:
        refused(site, "Model in place", "/srv/models/.staging has 8 MiB free, 20 MiB are needed")
    finally:
        site.lab.ssh("h1", "umount /srv/models/.staging")


def test_held_apt_lock(site: Site) -> None:
    site.hosts["h1"]["apt_lock_timeout"] = 3
    holder = (
        "import fcntl,time; f=open('/var/lib/dpkg/lock-frontend','w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(600)"
    )
    site.lab.ssh("h1", f'dpkg --remove --force-depends curl && systemd-run --unit=lock-holder python3 -c "{holder}"')
    try:
        refused(site, "Packages for llama.cpp installed", "packages not installed: curl", "lock was locked by")
    finally:
        site.lab.ssh("h1", "systemctl stop lock-holder")


def test_dead_package_mirror(site: Site) -> None:
    dead = f"deb [trusted=yes] http://{site.lab.address('h2')}:9 forky main"
    site.lab.ssh(
        "h1",
        f"dpkg --remove --force-depends curl; mkdir /root/apt && mv /etc/apt/sources.list* /root/apt/ && "
        f"echo '{dead}' > /etc/apt/sources.list",
    )
    try:
        refused(site, "Packages for llama.cpp installed", "packages not installed: curl", "E: ")
    finally:
        site.lab.ssh("h1", "rm /etc/apt/sources.list; mv /root/apt/* /etc/apt/; rmdir /root/apt")


def test_wrong_tag(site: Site) -> None:
    vendor, device = H100.split(":")
    site.lab.set_pci("h1", [PciDevice("0000:41:00.0", int(vendor, 16), int(device, 16))])
    try:
        refused(
            site,
            "Host is what its tag says",
            f"gpu_tag says cpu, the PCI bus has {H100} (tag h100-pcie): correct the tag",
        )
    finally:
        site.lab.set_pci("h1", [])


def test_stated_memory_that_is_not_there(site: Site) -> None:
    site.hosts["h1"]["memory_mib"] *= 4
    refused(site, "Host is what its tag says", "memory_mib says", "the host has")


def test_invalid_inventory_stops_before_any_host_is_touched_and_tells_all(site: Site) -> None:
    site.hosts["h1"]["services"][0] |= {"model": "no-such-model", "api_key_file": None}
    site.hosts["h2"]["services"][0]["api_key_file"] = "/no/such/file"
    run = site.deploy()
    assert run.code == 1
    assert run.outcomes == {}
    assert "host h1: service chat: model: no-such-model is not in the catalogue" in run.text
    assert "host h2: service chat: api_key_file: /no/such/file: No such file or directory" in run.text
    assert "Traceback" not in run.text
    assert serves(site.lab, "h1")


def test_model_that_does_not_fit_stops_before_any_host_is_touched(site: Site) -> None:
    site.hosts["h1"]["memory_mib"] = 64
    run = site.deploy()
    assert run.code == 1
    assert run.outcomes == {}
    assert "host h1: service chat: tiny-random Q8_0 does not fit" in run.text
    assert serves(site.lab, "h1")


def test_server_that_cannot_start_shows_its_last_words(site: Site) -> None:
    path = site.lab.ssh("h1", "ls /srv/models/*/*.gguf").stdout.split()[0]
    site.lab.ssh("h1", f"cp {path} /root/kept && printf broken | dd of={path} conv=notrunc 2>/dev/null")
    site.hosts["h1"]["services"][0]["concurrency"] = 3
    run = site.deploy()
    assert [name.partition(" | ")[2] for name in run.failed("h1")] == ["Service serving its plan"]
    assert "does not serve; its last words" in run.said_of("h1")
    assert "invalid magic" in run.said_of("h1") or "failed to load model" in run.said_of("h1")
    assert run.failed("h2") == []
    site.lab.ssh("h1", f"mv /root/kept {path} && chmod 644 {path}")
