"""Facts' commands: valid POSIX shell that succeeds anywhere and tells the truth about this machine."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from rackserve.facts.existing import Existing
from rackserve.facts.node import NodeFact
from rackserve.facts.packages import Dpkg
from rackserve.facts.paths import PathState, PathStates
from rackserve.facts.podman import Podman
from rackserve.facts.releases import Releases, ReleaseState
from rackserve.facts.services import InstalledServices
from rackserve.facts.units import ABSENT, Unit

COMMANDS = {
    "existing": Existing().command(["/etc", "/nowhere", "/a b"]),
    "nothing": Existing().command([]),
    "node": NodeFact().command(),
    "packages": Dpkg().command(),
    "paths": PathStates().command(["/etc/os-release", "/nowhere", "/a 'b"]),
    "sizes": PathStates().command(["/nowhere"], hash_content=False),
    "releases": Releases().command("/nowhere/releases", "/nowhere/current", "bin/llama-server"),
    "services": InstalledServices().command(),
    "podman": Podman().command(["podman", "no such"], ["localhost/a@sha256:1", "b 'c'"]),
    "contained": Unit().command("rackserve@nobody.service", None, "/nowhere/api-key"),
    "unit": Unit().command("rackserve@nobody.service", "/nowhere/llama-server", "/nowhere/api-key"),
}
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


def run(command: str, shell: str = "sh") -> list[str]:
    """Run as pyinfra does, with an environment that holds nothing of ours."""
    words = [shell, "sh"] if shell == "busybox" else [shell]
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run([*words, "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_shell_in_every_shell_there_is(name):
    for shell in SHELLS:
        words = [shell, "sh"] if shell == "busybox" else [shell]
        subprocess.run([*words, "-n", "-c", COMMANDS[name]], check=True)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_never_fails(name, shell):
    run(COMMANDS[name], shell)


def test_a_host_without_os_release_does_not_end_the_command(tmp_path):
    lines = run(COMMANDS["node"].replace("/etc/os-release", str(tmp_path / "missing")))
    assert f"arch={platform.machine()}" in lines


def test_the_node_of_this_machine_is_told():
    node = NodeFact().process(run(COMMANDS["node"]))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024**2
    assert (node.architecture, node.memory_mib) == (platform.machine(), pages)
    assert node.glibc == platform.libc_ver()[1]
    assert node.distribution == platform.freedesktop_os_release()["ID"]
    assert node.systemd == (Path("/proc/1/comm").read_text().strip() == "systemd")


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="no dpkg here")
def test_the_packages_of_this_machine_are_told():
    assert {"dpkg", "libc6"} <= Dpkg().process(run(COMMANDS["packages"])).installed


def test_files_are_told_with_mode_owner_size_and_checksum(tmp_path):
    name = 'it\'s a "file" $HOME %n'
    path = tmp_path / name
    path.write_bytes(b"content\n")
    path.chmod(0o640)
    (tmp_path / "link").symlink_to(path)
    asked = [str(path), str(tmp_path / "link"), str(tmp_path), str(tmp_path / "missing")]
    state = PathStates().process(run(PathStates().command(asked)))
    assert state == {
        str(path): PathState("640", path.owner(), path.group(), 8, hashlib.sha256(b"content\n").hexdigest())
    }
    assert PathStates().process(run(PathStates().command(asked, hash_content=False)))[str(path)].sha256 == "-"


def test_what_exists_is_told_dangling_links_included(tmp_path):
    (tmp_path / "a b").mkdir()
    (tmp_path / "dangling").symlink_to("/nowhere/at/all")
    asked = [str(tmp_path / name) for name in ("a b", "dangling", "missing")]
    assert Existing().process(run(Existing().command(asked))) == tuple(asked[:2])


def test_releases_are_complete_when_their_program_can_be_run(tmp_path):
    for name, mode in (("good", 0o755), ("bad", 0o644)):
        program = tmp_path / "releases" / name / "bin" / "llama-server"
        program.parent.mkdir(parents=True)
        program.touch()
        program.chmod(mode)
    (tmp_path / "releases" / "empty").mkdir()
    (tmp_path / "current").symlink_to(tmp_path / "releases" / "good")
    command = Releases().command(str(tmp_path / "releases"), str(tmp_path / "current"), "bin/llama-server")
    assert Releases().process(run(command)) == ReleaseState(frozenset({"good"}), "good")


def test_what_is_not_there_is_told_as_nothing():
    assert Releases().process(run(COMMANDS["releases"])) == Releases.default()
    assert InstalledServices().process(run(COMMANDS["services"])) == ()
    assert Unit().process(run(COMMANDS["unit"])) == ABSENT
