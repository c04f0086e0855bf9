"""Operations on Macs: nothing where observed is wanted, the difference elsewhere, and no secret in a command."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rackserve.facts.existing import Existing
from rackserve.facts.launchd import ABSENT, Daemon, DaemonState, InstalledDaemons, Job
from rackserve.facts.mac import Account, AccountState, MacPaths
from rackserve.facts.paths import Links, PathState
from rackserve.facts.releases import Releases, ReleaseState
from rackserve.operations import macos
from rackserve.planning.macos import MacRelease
from rackserve.planning.model_source import GgufSource
from rackserve.rendering.text import RenderedFile
from tests.macos.mac import Mac, each_shell
from tests.operations.sending import commands, script_of

RELEASE = MacRelease("https://x/y.tgz", "a" * 64, 7, "ollama-new", "bin/ollama", "/opt/rackserve/current/ollama")
SOURCE = GgufSource("https://hub/m.gguf", "b" * 64, 1234, "/opt/models/r@1/m.gguf")
ACCOUNT, HOME = "_rackserve-chat", "/var/lib/rackserve/chat"
KEY = "/etc/rackserve/credentials/chat/api-key"
LOADED = Job("running", 7, "digest")


def scripts(operation: Any, facts: dict[type, Any], **arguments: Any) -> list[tuple[str, ...]]:
    return [script_of(command) for command in commands(operation, facts, **arguments)]


def state_of(text: str, mode: str = "644", user: str = "root", group: str = "wheel") -> PathState:
    return PathState(mode, user, group, len(text), hashlib.sha256(text.encode()).hexdigest())


def test_services_that_are_not_planned_go_and_jobs_of_ours_stay():
    facts = {InstalledDaemons: ("chat", "gpu-memory", "old")}
    assert scripts(macos.only_daemons, facts, names=["chat"]) == [("remove-mac.sh", "", "old", "60")]
    assert scripts(macos.only_daemons, facts, names=["chat", "old"]) == []


# releases and models


def test_a_release_that_is_current_is_left_alone():
    facts = {Releases: ReleaseState(frozenset({RELEASE.name}), RELEASE.name)}
    assert commands(macos.mac_release, facts, release=RELEASE) == []


def test_a_release_that_is_complete_is_activated_only():
    facts = {Releases: ReleaseState(frozenset({RELEASE.name}), "ollama-old")}
    folder = f"/opt/rackserve/releases/{RELEASE.name}"
    assert scripts(macos.mac_release, facts, release=RELEASE) == [("activate-mac.sh", folder, RELEASE.link, "3")]


def test_a_release_that_is_missing_is_fetched_unpacked_and_activated():
    facts = {Releases: ReleaseState(frozenset({"ollama-old"}), "ollama-old")}
    fetch, unpack, clean, activate = commands(macos.mac_release, facts, release=RELEASE)
    archive = f"/opt/rackserve/archives/{RELEASE.name}.tar.gz"
    folder = f"/opt/rackserve/releases/{RELEASE.name}"
    assert script_of(fetch) == ("fetch-mac.sh", RELEASE.url, RELEASE.checksum, "7", archive)
    assert script_of(unpack) == ("release-mac.sh", folder, archive, "bin/ollama")
    assert clean.get_raw_value() == f"rm -f {archive}"
    assert script_of(activate) == ("activate-mac.sh", folder, RELEASE.link, "3")


@pytest.mark.parametrize(("size", "sent"), [(1234, 0), (1233, 1), (None, 1)])
def test_a_model_is_fetched_unless_it_is_there_in_its_size(size, sent):
    states = {} if size is None else {SOURCE.path: PathState("644", "root", "wheel", size, "-")}
    found = scripts(macos.mac_model, {MacPaths: states}, source=SOURCE, hub="https://hub")
    assert found == [("fetch-mac.sh", SOURCE.url, SOURCE.sha256, "1234", SOURCE.path)][:sent]


# accounts and keys


def test_an_account_is_made_unless_it_is_as_it_should_be():
    good = AccountState(499, 499, 499, True, "/usr/bin/false", f"700 {ACCOUNT} {ACCOUNT}")
    assert scripts(macos.mac_account, {Account: good}, account=ACCOUNT, home=HOME) == []
    for bad in (replace(good, hidden=False), replace(good, uid=0)):
        assert scripts(macos.mac_account, {Account: bad}, account=ACCOUNT, home=HOME) == [
            ("user-mac.sh", ACCOUNT, HOME)
        ]


@pytest.mark.parametrize(
    "state",
    [
        None,
        state_of("sk-x\n", "600", "root", ACCOUNT),
        state_of("sk-x\n", "444", "root", ACCOUNT),
        state_of("sk-x\n", "440", ACCOUNT, ACCOUNT),
        state_of("sk-x\n", "440", "root", "staff"),
    ],
)
def test_a_key_that_others_may_read_or_the_service_change_is_made_anew(state):
    sent = commands(macos.mac_api_key, {MacPaths: {KEY: state}}, path=KEY, group=ACCOUNT, source=None)
    assert len(sent) == 3


def test_a_key_that_is_in_place_stays(tmp_path):
    facts = {MacPaths: {KEY: state_of("sk-operators-key\n", "440", "root", ACCOUNT)}}
    assert commands(macos.mac_api_key, facts, path=KEY, group=ACCOUNT, source=None) == []
    (tmp_path / "key").write_text("sk-operators-key")
    assert commands(macos.mac_api_key, facts, path=KEY, group=ACCOUNT, source=str(tmp_path / "key")) == []
    (tmp_path / "key").write_text("sk-another-key")
    sent = commands(macos.mac_api_key, facts, path=KEY, group=ACCOUNT, source=str(tmp_path / "key"))
    assert [command for command in sent if "another" in command.get_raw_value()] == []
    assert sent[-1].connector_arguments["_stdin"] == ["sk-another-key\n"]


def run(mac: Mac, shell: str, command: Any) -> subprocess.CompletedProcess[str]:
    """A command as a host's shell runs it; `sh` in it is the shell that is tried."""
    mac.tool("sh", f'#!/bin/sh\nexec {shell} {"--posix" if shell == "bash" else ""} "$@"\n')
    text = "".join(command.connector_arguments.get("_stdin", []))
    return mac.run(shell, "-c", command.get_raw_value(), stdin=text)


@each_shell
@pytest.mark.parametrize("given", [False, True], ids=["made", "given"])
def test_a_key_is_the_services_to_read_and_roots_to_change(bare, tmp_path, given, shell):
    bare.put_account(ACCOUNT)
    source = tmp_path / "operators"
    source.write_text("sk-operators-key\n")
    path = bare.path(KEY)
    arguments = {"path": str(path), "group": ACCOUNT, "source": str(source) if given else None}
    for command in commands(macos.mac_api_key, {MacPaths: {}}, **arguments):
        done = run(bare, shell, command)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = path.read_text()
    assert text == "sk-operators-key\n" if given else text.startswith("sk-")
    assert len(text) >= 17
    assert path.stat().st_mode & 0o7777 == 0o440
    assert path.parent.stat().st_mode & 0o7777 == 0o750
    assert path.parent.parent.stat().st_mode & 0o7777 == 0o711
    folder = str(Path(KEY).parent)
    assert bare.owners()[folder] == f"root:{ACCOUNT}"
    assert [owner for name, owner in bare.owners().items() if name.startswith(f"{folder}/")] == [f"root:{ACCOUNT}"]
    assert [entry.name for entry in path.parent.iterdir()] == ["api-key"]


def test_two_keys_are_two(bare):
    found = set()
    for name in ("a", "b"):
        arguments = {"path": str(bare.path(f"/etc/c/{name}/key")), "group": "root", "source": None}
        for command in commands(macos.mac_api_key, {MacPaths: {}}, **arguments):
            assert run(bare, "dash", command).returncode == 0
        found.add(bare.path(f"/etc/c/{name}/key").read_text())
    assert len(found) == 2


# files and links


def test_files_as_planned_are_left_alone_and_others_are_written():
    files = [RenderedFile(f"/Library/{number}.plist", f"{number}\n") for number in range(4)]
    states = {
        files[0].path: state_of("0\n"),
        files[1].path: state_of("other\n"),
        files[2].path: state_of("2\n", group="staff"),
    }
    sent = commands(macos.mac_files, {MacPaths: states}, files=files)
    assert [command.connector_arguments["_stdin"] for command in sent] == [["1\n"], ["2\n"], ["3\n"]]
    states = {file.path: state_of(file.text) for file in files}
    assert commands(macos.mac_files, {MacPaths: states}, files=files) == []


@each_shell
def test_a_file_arrives_whole_or_not_at_all(bare, shell):
    path = bare.path("/Library/LaunchDaemons/it's $HOME.plist")
    command = macos.write_file(str(path), "<plist/>\n", "644", "root:wheel")
    assert run(bare, shell, command).returncode == 0
    assert (path.read_text(), path.stat().st_mode & 0o7777) == ("<plist/>\n", 0o644)
    command.connector_arguments["_stdin"] = ["<pli"]
    done = run(bare, shell, command)
    assert done.returncode == 1
    assert "transfer cut off" in done.stderr
    assert path.read_text() == "<plist/>\n"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@each_shell
def test_links_lead_where_they_are_to(bare, shell):
    links = [(str(bare.path(f"/etc/rackserve/ollama/chat/blobs/{name}")), "/opt/models/a b.gguf") for name in "ab"]

    def told() -> dict[str, str]:
        done = bare.run(shell, "-c", Links().command([path for path, _ in links]))
        return Links().process(done.stdout.splitlines())

    assert told() == {}
    for _ in range(2):
        for command in commands(macos.mac_links, {Links: told()}, links=links):
            assert run(bare, shell, command).returncode == 0
    assert told() == dict(links)
    assert commands(macos.mac_links, {Links: told()}, links=links) == []
    (command,) = commands(macos.mac_links, {Links: told() | {links[0][0]: "/elsewhere"}}, links=links)
    assert links[0][0] in command.get_raw_value()
    assert commands(macos.mac_links, {}, links=[]) == []


# services


@pytest.mark.parametrize(
    ("state", "sent"),
    [
        (DaemonState(LOADED, replace(LOADED, state="not running"), enabled=True, current=True), 0),
        (DaemonState(LOADED, LOADED, enabled=True, current=False), 1),
        (DaemonState(LOADED, Job(), enabled=True, current=True), 1),
        (ABSENT, 1),
    ],
)
def test_a_service_is_loaded_unless_it_serves_this_plan(state, sent):
    arguments = {"service": "chat", "digest": "digest", "files": ["/x"], "seconds": 50}
    assert scripts(macos.mac_serving, {Daemon: state}, **arguments) == [("load-mac.sh", "", "chat", "50")][:sent]


def test_what_is_left_is_removed_and_nothing_else():
    assert scripts(macos.mac_absent, {Existing: ("/opt/rackserve",)}, paths=["/opt/rackserve", "/x"]) == [
        ("uninstall-mac.sh", "/opt/rackserve")
    ]
    assert scripts(macos.mac_absent, {Existing: ()}, paths=["/opt/rackserve"]) == []
