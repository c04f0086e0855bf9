"""repository-rpm.sh with recording stand-ins for dnf and rpmkeys: what they are told, and what is kept from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rackserve.rendering.repositories import keyring_path, repository_file
from tests.operations.private_root import needs_private_root
from tests.operations.repository_bench import Bench, working_bench

pytestmark = needs_private_root
# Where the recordings lie no check of the host's own files looks.
RECORDING = """#!/bin/sh
echo "{0} $*" >>/tmp/calls
[ {0} = rpmkeys ] || cp /var/lib/rackserve/.repository/repos/try.repo /tmp/tried.repo
[ ! -e /tmp/{0}-says ] || {{ cat /tmp/{0}-says >&2; exit 1; }}
"""
# The keys that rpm knows: one of somebody else's, and what was imported.
KEYS = """#!/bin/sh
echo gpg-pubkey-0a1b2c3d-1
[ ! -e /tmp/calls ] || sed -n 's/^rpmkeys --import.*/gpg-pubkey-4e5f6071-2/p' /tmp/calls | sort -u
"""
STAGING = "/var/lib/rackserve/.repository"
ALONE = (
    f"dnf -q -y --setopt=reposdir={STAGING}/repos --setopt=cachedir={STAGING}/cache --setopt=keepcache=False "
    "--setopt=skip_if_unavailable=False --setopt=retries=1 --disablerepo=* --enablerepo=rackserve-nv "
    "makecache --refresh"
)
IMPORT = f"rpmkeys --import {STAGING}/key"


class RpmBench:
    """The same vendor as for apt; only the key is asked for in earnest."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        for name in ("dnf", "rpmkeys"):
            bench.root.program(name, RECORDING.format(name))
        bench.root.program("rpm", KEYS)
        bench.root.path("/tmp").mkdir()

    @property
    def repo(self) -> Path:
        return self.bench.root.path(repository_file(self.bench.planned(format="rpm")).path)

    @property
    def key(self) -> Path:
        return self.bench.root.path(keyring_path(self.bench.planned(format="rpm")))

    def add(self, *aside: str, **values: Any) -> tuple[int, str, str]:
        return self.bench.add(*aside, format="rpm", **values)

    def refused(self, *aside: str, **values: Any) -> str:
        """Why it was not added; the host's own files are as before."""
        code, out, err = self.add(*aside, **values)
        assert (code, out) == (1, "")
        assert not self.repo.exists()
        assert not self.key.exists()
        return err.removeprefix(f"repository {self.bench.planned(**values).url} not added: ")

    def says(self, program: str, text: str) -> None:
        self.bench.root.path(f"/tmp/{program}-says").write_text(text)

    @property
    def calls(self) -> list[str]:
        path = self.bench.root.path("/tmp/calls")
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def rpm(tmp_path: Path) -> Iterator[RpmBench]:
    with working_bench(tmp_path) as made:
        yield RpmBench(made)


def test_a_repository_is_tried_alone_before_dnf_gets_to_see_it(rpm):
    assert rpm.add() == (0, "", "")
    assert rpm.calls == [ALONE, IMPORT]
    planned = rpm.bench.planned(format="rpm")
    assert rpm.repo.read_text() == rpm.bench.root.path("/tmp/tried.repo").read_text() == repository_file(planned).text
    assert rpm.key.read_text() == rpm.bench.key.armored
    assert [path.stat().st_mode & 0o7777 for path in (rpm.repo, rpm.key)] == [0o644, 0o644]
    assert not rpm.bench.root.path(STAGING).exists()


def test_a_key_that_was_not_there_before_is_kept_in_mind_for_uninstalling(rpm):
    rpm.add()
    rpm.add()
    added = rpm.bench.root.path("/var/lib/rackserve/packages-added")
    assert added.read_text() == "gpg-pubkey-4e5f6071-2\n"


def test_a_second_run_ends_in_the_same_files(rpm):
    rpm.add()
    before = rpm.repo.read_text(), rpm.key.read_text()
    assert rpm.add() == (0, "", "")
    assert (rpm.repo.read_text(), rpm.key.read_text()) == before


def test_neither_dnf_nor_rpm_sees_a_key_that_is_not_the_pinned_one(rpm):
    rpm.bench.key_file.write_text(rpm.bench.key.armored + rpm.bench.other.armored)
    both = " ".join(sorted((rpm.bench.key.fingerprint, rpm.bench.other.fingerprint)))
    assert f"holds the keys {both} and has to hold {rpm.bench.key.fingerprint}" in rpm.refused()
    assert rpm.calls == []


def test_a_key_that_rpm_refuses_is_told_with_its_reason(rpm):
    rpm.says("rpmkeys", f"error: {STAGING}/key: key 1 import failed.\n")
    said = rpm.refused()
    assert said == (f"rpm refuses the key {rpm.bench.key.fingerprint}: error: {STAGING}/key: key 1 import failed.\n")


REFUSED = "Curl error (7): Couldn't connect to server for http://m/repodata/repomd.xml [Failed to connect]"
OVERLOADED = "Status code: 503 for http://m/repodata/repomd.xml (IP: 127.0.0.1)"
DAMAGED = "Downloading successful, but checksum doesn't match. Calculated: aa(sha256)  Expected: bb(sha256)"
UPDATING = "its package list is not the one that its index names (a mirror in the middle of its update)"
UNTRUSTED = "Curl error (60): Peer certificate cannot be authenticated with given CA certificates"
ABSENT = "Status code: 404 for http://m/repodata/repomd.xml"


@pytest.mark.parametrize(
    ("reason", "told", "pauses"),
    [
        (REFUSED, f"unreachable: {REFUSED}\n", ["2", "6"]),
        (OVERLOADED, f"unreachable: {OVERLOADED}\n", ["2", "6"]),
        (DAMAGED, f"hash mismatch: {UPDATING}\n{DAMAGED}\n", ["2", "6"]),
        (UNTRUSTED, f"{UNTRUSTED}; the clocks of this host and the server agree\n", []),
        (ABSENT, f"  - {ABSENT}\nError: Failed to download metadata for repo 'rackserve-nv'\n", []),
    ],
    ids=["down", "overloaded", "mismatch", "certificate", "absent"],
)
def test_a_repository_that_dnf_cannot_read_is_told_in_its_words(rpm, reason, told, pauses):
    rpm.says("dnf", f"  - {reason}\nError: Failed to download metadata for repo 'rackserve-nv'\n")
    assert rpm.refused() == told
    assert rpm.bench.pauses() == pauses
    # It is tried again where that may help, and rpm has not been told of the key.
    assert rpm.calls == [ALONE] * (len(pauses) + 1)


def test_a_section_among_others_is_switched_off_and_the_rest_stays(rpm):
    theirs = rpm.bench.root.path("/etc/yum.repos.d/all.repo")
    text = "[cuda]\nname=cuda\nenabled = 1\nbaseurl=http://m/\n\n[other]\nenabled=1\nbaseurl=http://o/\n"
    theirs.write_text(text)
    theirs.chmod(0o600)
    code, out, _ = rpm.add("/etc/yum.repos.d/all.repo", "[cuda]")
    assert code == 0
    assert theirs.read_text() == text.replace("[cuda]\n", "[cuda]\nenabled=0\n").replace("enabled = 1\n", "")
    assert theirs.stat().st_mode & 0o7777 == 0o600
    aside = theirs.with_name("all.repo.disabled-by-rackserve")
    assert aside.read_text() == text
    assert out == f"disabled in /etc/yum.repos.d/all.repo: [cuda] (as it was: /etc/yum.repos.d/{aside.name})\n"


def test_a_file_of_somebody_else_stays_where_the_repository_is_bad(rpm):
    theirs = rpm.bench.root.path("/etc/yum.repos.d/cuda.repo")
    theirs.write_text("[cuda]\nbaseurl=http://m/\n")
    rpm.says("rpmkeys", "error: no\n")
    rpm.refused("/etc/yum.repos.d/cuda.repo", "")
    assert theirs.read_text() == "[cuda]\nbaseurl=http://m/\n"
