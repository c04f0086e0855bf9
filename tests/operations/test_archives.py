"""Releases of archives, links beside a plan's files, and what another server holds: only the difference is sent."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackserve.facts.paths import Links
from rackserve.facts.releases import Releases, ReleaseState
from rackserve.facts.vendor_server import VendorServerFact
from rackserve.operations.files import links
from rackserve.operations.release import archive_release
from rackserve.operations.require import undisturbed
from rackserve.planning.vendor_server import VendorServer
from rackserve.runtimes.archives import ArchiveRelease
from tests.operations.sending import commands, script_of
from tests.planning.test_vendor_server import plan_of

SHA512 = "c" * 128
RELEASE = ArchiveRelease(
    runtime="ollama",
    version="0.32.15",
    url="https://x/o.tar.zst",
    checksum="b" * 64,
    size_bytes=7,
    program="bin/ollama",
    tells_version=True,
    packages=("zstd",),
)
NAME = "ollama-0.32.15-bbbbbbbbbbbb"
FOLDER, LINK = f"/opt/rackserve/releases/{NAME}", "/opt/rackserve/current/ollama"


def test_a_release_that_is_current_is_left_alone():
    state = ReleaseState(frozenset({NAME}), NAME)
    assert commands(archive_release, {Releases: state}, release=RELEASE) == []


def test_a_release_that_is_there_is_switched_to_and_not_fetched():
    state = ReleaseState(frozenset({NAME, "ollama-0.32.16-d"}), "ollama-0.32.16-d")
    (command,) = commands(archive_release, {Releases: state}, release=RELEASE)
    assert script_of(command) == ("activate.sh", FOLDER, LINK, "3", "/var/cache/rackserve")


def test_a_release_that_is_missing_is_fetched_unpacked_asked_for_its_version_and_switched_to():
    fetch, unpack, remove, activate = commands(
        archive_release, {Releases: ReleaseState(frozenset(), "")}, release=RELEASE
    )
    archive = f"/var/cache/rackserve/archives/{NAME}.tar"
    assert script_of(fetch) == ("fetch.sh", "https://x/o.tar.zst", "b" * 64, "7", archive)
    assert script_of(unpack) == ("archive.sh", FOLDER, archive, "bin/ollama", "0.32.15")
    assert remove.get_raw_value() == f"rm -f {archive}"
    assert script_of(activate) == ("activate.sh", FOLDER, LINK, "3", "/var/cache/rackserve")


def test_a_program_that_cannot_tell_its_version_is_not_asked():
    release = replace(RELEASE, runtime="lmstudio", checksum=SHA512, program="llmster", tells_version=False)
    _, unpack, _, activate = commands(archive_release, {Releases: ReleaseState(frozenset(), "")}, release=release)
    assert script_of(unpack)[-2:] == ("llmster", "")
    assert script_of(activate)[1:3] == (
        "/opt/rackserve/releases/lmstudio-0.32.15-cccccccccccc",
        "/opt/rackserve/current/lmstudio",
    )


# links


def test_links_that_are_as_planned_are_left_alone():
    assert commands(links, {Links: {"/a/b": "/srv/m"}}, wanted=[("/a/b", "/srv/m")]) == []


def test_only_links_that_differ_are_made(tmp_path):
    there, missing, wrong = (str(tmp_path / "blobs" / name) for name in ("there", "missing", "wrong"))
    (tmp_path / "blobs").mkdir()
    Path(wrong).symlink_to("/old")
    target = "/srv/models/it's $HOME.gguf"
    found = {there: target, wrong: "/old"}
    sent = commands(links, {Links: found}, wanted=[(path, target) for path in (there, missing, wrong)])
    assert len(sent) == 2
    for command in sent * 2:
        subprocess.run(["sh", "-c", command.get_raw_value()], check=True)
    assert [str(Path(path).readlink()) for path in (missing, wrong)] == [target] * 2
    assert sorted(entry.name for entry in (tmp_path / "blobs").iterdir()) == ["missing", "wrong"]


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_a_target_with_anything_in_it_is_a_target(tmp_path_factory, target):
    path = tmp_path_factory.mktemp("links") / "x"
    (command,) = commands(links, {Links: {}}, wanted=[(str(path), target)])
    subprocess.run(["sh", "-c", command.get_raw_value()], check=True)
    # As it is: a Path would tidy it up.
    assert os.readlink(path) == target  # noqa: PTH115


# another server


@pytest.mark.parametrize("found", [None, VendorServer(11434, 0)])
def test_a_server_that_holds_nothing_of_the_plans_is_no_reason_to_stop(found):
    assert commands(undisturbed, {VendorServerFact: found}, plan=plan_of()) == []


def test_a_server_that_holds_the_port_refuses_the_host():
    (command,) = commands(undisturbed, {VendorServerFact: VendorServer(8001, 0)}, plan=plan_of())
    done = subprocess.run(["sh", "-c", command.get_raw_value()], capture_output=True, text=True, check=False)
    assert (done.returncode, "port 8001" in done.stderr) == (1, True)
