"""Operations of uninstalling: what is there goes, and where nothing is nothing is sent."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rackserve.facts.existing import Existing
from rackserve.facts.own_packages import OwnPackages, OwnPackagesState, parse_own_packages
from rackserve.operations.uninstall import absent, memory_limit_gone, own_packages_gone
from tests.operations.sending import commands, script_of


def test_files_that_are_there_go_and_no_others():
    assert commands(absent, {Existing: ()}, paths=["/opt/rackserve"]) == []
    (command,) = commands(absent, {Existing: ("/opt/rackserve",)}, paths=["/opt/rackserve", "/etc/rackserve"])
    assert script_of(command) == ("uninstall.sh", "/opt/rackserve")


@pytest.mark.parametrize("manager", ["deb", "rpm"])
def test_packages_go_by_the_hosts_own_package_manager(manager):
    assert commands(own_packages_gone, {OwnPackages: OwnPackagesState((), manager)}, lock_timeout=9) == []
    found = OwnPackagesState(("nvidia-driver-cuda",), manager)
    (command,) = commands(own_packages_gone, {OwnPackages: found}, lock_timeout=9)
    assert script_of(command) == (f"uninstall-{manager}.sh", "9")


def test_a_mac_gets_its_own_limit_back():
    facts = {"label": "io.rackserve.gpu-memory", "path": "/Library/LaunchDaemons/x.plist"}
    assert commands(memory_limit_gone, {Existing: ()}, **facts) == []
    (command,) = commands(memory_limit_gone, {Existing: (facts["path"],)}, **facts)
    assert script_of(command) == ("wired-limit-gone.sh", facts["label"], facts["path"])


@pytest.mark.parametrize(
    ("lines", "state"),
    [
        ([], OwnPackagesState((), "deb")),
        (["deb"], OwnPackagesState((), "deb")),
        (["deb", "dkms", "", "gpg"], OwnPackagesState(("dkms", "gpg"), "deb")),
        (["rpm", "dkms"], OwnPackagesState(("dkms",), "rpm")),
    ],
)
def test_the_list_is_read_as_it_was_written(lines, state):
    assert parse_own_packages(lines) == state


def test_a_star_stands_for_any_part_of_a_name_and_nothing_else_is_shell(tmp_path: Path):
    for name in ("rackserve-a.sources", "rackserve-b.sources", "other.sources", "it's $HOME"):
        (tmp_path / name).touch()
    asked = [f"{tmp_path}/rackserve-*.sources", f"{tmp_path}/it's $HOME", f"{tmp_path}/missing-*"]
    said = subprocess.run(["sh", "-c", Existing().command(asked)], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [
        f"{tmp_path}/rackserve-a.sources",
        f"{tmp_path}/rackserve-b.sources",
        f"{tmp_path}/it's $HOME",
    ]
