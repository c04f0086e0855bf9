"""Facts' commands: valid POSIX shell that succeeds anywhere and tells the truth about this machine."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rackserve.facts.existing import Existing
from rackserve.facts.node import NodeFact
from rackserve.facts.packages import Dpkg
from rackserve.facts.paths import PathState, PathStates
from rackserve.facts.podman import Podman
from rackserve.facts.releases import Releases, ReleaseState
from rackserve.facts.services import Installed, InstalledServices
from rackserve.facts.units import ABSENT, Unit, UnitState
from tests import needs

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


def run(command: str, shell: str = "sh", tools: Path | None = None) -> list[str]:
    """Run as pyinfra does, with an environment that holds nothing of ours; `tools` come first on its PATH."""
    words = [shell, "sh"] if shell == "busybox" else [shell]
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {"PATH": f"{tools}:{path}" if tools else path}
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


@needs.programs("dpkg-query")
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
    assert InstalledServices().process(run(COMMANDS["services"])) == Installed()
    assert Unit().process(run(COMMANDS["unit"])) == ABSENT


SYSTEMCTL = """#!/bin/sh
case "$*" in
  "is-active --quiet -- rackserve-health@chat.timer") exit {inactive} ;;
  *"rackserve-health@chat.timer rackserve-health@chat.service") printf '{timer}\n\n{check}\n' ;;
  *"MainPID --value"*) echo {pid} ;;
  show*) printf 'ActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no\nMainPID={pid}\n' ;;
esac
"""


def unit_told(folder: Path, shell: str, program: str = "/bin/true", **said: object) -> UnitState:
    """What is read of a unit whose systemd says this."""
    (folder / "systemctl").write_text(
        SYSTEMCTL.format(**{"inactive": 0, "timer": "no", "check": "no", "pid": 0} | said)
    )
    (folder / "systemctl").chmod(0o755)
    command = Unit().command("rackserve@chat.service", program, None)
    return Unit().process(run(command, shell, folder))


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("said", "watched"),
    [({}, True), ({"inactive": 3}, False), ({"timer": "yes"}, False), ({"check": "yes"}, False)],
    ids=["as it should be", "stopped", "another timer on disk", "another check on disk"],
)
def test_a_health_check_is_told_as_it_is(tmp_path, shell, said, watched):
    found = unit_told(tmp_path, shell, **said)
    assert (found.active, found.watched) == ("active", watched)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_process_has_the_libraries_that_are_on_disk_or_has_not(tmp_path, shell):
    library = tmp_path / "release" / "lib.so"
    library.parent.mkdir()
    library.write_bytes(b"1" * 4096)
    mapping = "import mmap, sys; f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)"
    command = [sys.executable, "-c", f"{mapping}; print(flush=True); sys.stdin.read()", str(library)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        told = [
            unit_told(tmp_path, shell, str(folder), pid=process.pid) for folder in (library.parent, tmp_path / "rel")
        ]
        assert [found.current_program for found in told] == [True, False]
        # A release that is made anew has the name of the old one.
        library.unlink()
        library.write_bytes(b"2" * 4096)
        assert not unit_told(tmp_path, shell, str(library.parent), pid=process.pid).current_program
        process.communicate()
