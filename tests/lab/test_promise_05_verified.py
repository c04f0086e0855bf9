"""Nothing downloaded is used before it was verified, and nothing unverified ever has its final name.

What comes from the mirror is not what was pinned: a model on one host, a release's archive on the other. A watcher
on each host writes down whatever has a final name, at any moment.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.conftest import LabFactory
from tests.lab.deploying import Run, Site, main_pid, serves

pytestmark = pytest.mark.lab

MODEL_HOST, ARCHIVE_HOST = "h1", "h2"
NEW_REVISION = "2" * 40
ARCHIVE, IN_ARCHIVE = "llama-server.tar.gz", "llama/bin/llama-server"
# Every content that a file with a final name has ever had. Names that begin with a dot are where things come together.
WATCHER = """
import hashlib, os, time
known = set()
with open("/root/seen", "w", buffering=1) as seen:
    while True:
        for top in ("/srv/models", "/opt/rackserve/releases"):
            for folder, folders, names in os.walk(top):
                folders[:] = [name for name in folders if not name.startswith(".")]
                for path in (os.path.join(folder, name) for name in names):
                    try:
                        told = os.stat(path)
                        state = (path, told.st_ino, told.st_size, told.st_mtime_ns)
                        if state in known:
                            continue
                        digest = hashlib.sha256(open(path, "rb").read()).hexdigest()
                    except OSError:
                        continue
                    known.add(state)
                    print(digest, path, file=seen)
        time.sleep(0.005)
"""


@dataclass
class Deceived:
    """Two hosts that served when the mirror began to give out something else, and what a run then did."""

    site: Site
    before: dict[str, tuple[str, str]]
    run: Run
    seen: dict[str, str]
    right: dict[str, bytes]
    wrong: dict[str, bytes]


@pytest.fixture(scope="module")
def deceived(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Deceived:
    folder = tmp_path_factory.mktemp("verified")
    lab = lab_factory("verified")
    lab.up(2, "forky")
    site = Site(lab, folder)
    run = site.deploy()
    assert run.code == 0, run.text
    model = next((lab.depot_dir / "rackserve" / "tiny-random" / "resolve").glob("0*/*.gguf"))
    # Alike in size, so that nothing but the checksum tells them apart.
    flipped = bytes([model.read_bytes()[-1] ^ 1])
    right = {MODEL_HOST: model.read_bytes(), ARCHIVE_HOST: packed(program_of(site))}
    wrong = {MODEL_HOST: right[MODEL_HOST][:-1] + flipped, ARCHIVE_HOST: packed(b"#!/bin/sh\ntouch /root/used\n")}
    plan_newer(site, folder, right)
    offer(site, model.name, wrong)
    for host in site.hosts:
        lab.ssh(host, "cat >/root/watch.py; systemd-run --quiet python3 /root/watch.py", input=WATCHER)
        lab.ssh(
            host,
            "systemd-run --quiet --unit=watcher python3 /root/watch.py; until [ -s /root/seen ]; do sleep 0.1; done",
        )
    before = {host: main_pid(lab, host) for host in site.hosts}
    refused = site.deploy()
    seen = {host: lab.ssh(host, "cat /root/seen").stdout for host in site.hosts}
    return Deceived(site, before, refused, seen, right, wrong)


def program_of(site: Site) -> bytes:
    """The server that the host's own package has."""
    return (site.lab.folder(ARCHIVE_HOST).upper / "usr/bin/llama-server").read_bytes()


def packed(program: bytes) -> bytes:
    """An archive with this as its program."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        member = tarfile.TarInfo(IN_ARCHIVE)
        member.size, member.mode = len(program), 0o755
        archive.addfile(member, io.BytesIO(program))
    return content.getvalue()


def plan_newer(site: Site, folder: Path, right: dict[str, bytes]) -> None:
    """One host is to have a newer revision of the model, the other a newer release, each pinned as it should be."""
    catalogue = Path(site.hosts[MODEL_HOST]["catalog"][0])
    newer = folder / "newer.toml"
    newer.write_text(catalogue.read_text().replace("0" * 40, NEW_REVISION))
    site.hosts[MODEL_HOST]["catalog"] = [str(newer)]
    site.hosts[ARCHIVE_HOST] |= {
        "llamacpp_install": "archive",
        "llamacpp_archive_url": f"{site.lab.depot_url}/{ARCHIVE}",
        "llamacpp_archive_sha256": hashlib.sha256(right[ARCHIVE_HOST]).hexdigest(),
    }


def offer(site: Site, model: str, contents: dict[str, bytes]) -> None:
    """What the mirror gives out."""
    place = site.lab.depot_dir / "rackserve" / "tiny-random" / "resolve" / NEW_REVISION / model
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(contents[MODEL_HOST])
    (site.lab.depot_dir / ARCHIVE).write_bytes(contents[ARCHIVE_HOST])


@pytest.mark.parametrize("host", [MODEL_HOST, ARCHIVE_HOST])
def test_what_is_not_as_pinned_is_refused_and_the_service_goes_on(deceived: Deceived, host: str) -> None:
    found, pinned = (hashlib.sha256(kind[host]).hexdigest() for kind in (deceived.wrong, deceived.right))
    assert f"SHA-256 is {found}, expected {pinned}" in deceived.run.said_of(host), deceived.run.text
    assert main_pid(deceived.site.lab, host) == deceived.before[host]
    assert serves(deceived.site.lab, host)


def test_it_never_had_its_final_name(deceived: Deceived) -> None:
    for host in (MODEL_HOST, ARCHIVE_HOST):
        # What was there before has been seen, which is what the watcher has to be able to.
        assert ".gguf" in deceived.seen[host]
        assert NEW_REVISION not in deceived.seen[host]
        assert IN_ARCHIVE not in deceived.seen[host]


def test_it_was_never_used(deceived: Deceived) -> None:
    assert deceived.site.lab.ssh(ARCHIVE_HOST, "ls /root/used", check=False).returncode == 2
    assert deceived.site.lab.ssh(ARCHIVE_HOST, "ls -A /var/cache/rackserve/archives 2>/dev/null; true").stdout == ""


def test_what_is_as_pinned_gets_its_name_with_its_whole_content(deceived: Deceived) -> None:
    site = deceived.site
    model = next(Path(site.lab.depot_dir, "rackserve", "tiny-random", "resolve").glob("0*/*.gguf")).name
    offer(site, model, deceived.right)
    run = site.deploy()
    assert run.code == 0, run.text
    for host in (MODEL_HOST, ARCHIVE_HOST):
        assert main_pid(site.lab, host) != deceived.before[host]
        assert serves(site.lab, host)
    assert contents(site, MODEL_HOST, NEW_REVISION) == {hashlib.sha256(deceived.right[MODEL_HOST]).hexdigest()}
    # The archive's own program, and no other.
    assert contents(site, ARCHIVE_HOST, IN_ARCHIVE) == {hashlib.sha256(program_of(site)).hexdigest()}


def contents(site: Site, host: str, word: str) -> set[str]:
    """Checksums of whatever a file with this in its final name has ever held."""
    seen = site.lab.ssh(host, "cat /root/seen").stdout.splitlines()
    return {line.split()[0] for line in seen if word in line}
