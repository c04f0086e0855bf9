"""Facts of Macs: what was recorded is understood, and the commands run with what stands in for macOS' tools."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackserve.facts.launchd import ABSENT, Daemon, DaemonState, InstalledDaemons, Job, parse_daemon, parse_job
from rackserve.facts.mac import Account, MacPaths, parse_account
from rackserve.facts.paths import PathState
from tests.macos.mac import Mac, each_shell, until
from tests.macos.recorded import DIGEST, FAILING, RUNNING, WATCH

JOB = "io.rackserve.chat"
PLIST = f"/Library/LaunchDaemons/{JOB}.plist"


def asked(mac: Mac, shell: str, command: str) -> list[str]:
    return mac.run(shell, "-c", command).stdout.splitlines()


# what launchd says


def test_a_running_job_is_understood():
    assert parse_job(RUNNING.splitlines()) == Job("running", 893, DIGEST)


def test_states_and_pids_inside_a_job_are_not_the_jobs():
    assert parse_job(WATCH.splitlines()) == Job("not running", 0, DIGEST)


def test_a_job_that_fails_is_understood():
    assert parse_job(FAILING.splitlines()) == Job("spawn scheduled", 0, "00")


def test_a_job_that_is_not_loaded_is_none():
    assert parse_job([]) == Job()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_whatever_launchd_says_is_parsed(text):
    # Nothing that a fact did not ask for is a service that runs.
    assert not parse_daemon(text.splitlines()).runs(DIGEST)


def said(daemon: str = RUNNING, watch: str = WATCH, overrides: str = "", **times: str) -> list[str]:
    told = {"now": "1000000", "elapsed": "10:00", "changed": "999000 998000"} | times
    lines = "".join(f"{key}={value}\n" for key, value in told.items())
    return f"== daemon\n{daemon}== watch\n{watch}== overrides\n{overrides}== times\n{lines}".splitlines()


def test_a_service_as_planned_runs():
    state = parse_daemon(said())
    assert state == DaemonState(Job("running", 893, DIGEST), Job("not running", 0, DIGEST), enabled=True, current=True)
    assert state.runs(DIGEST)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        said(daemon=""),
        said(watch=""),
        said(daemon=FAILING),
        said(daemon=RUNNING.replace("state = running", "state = SIGTERMed", 1)),
        said(watch=WATCH.replace(DIGEST, "f" * 64)),
        said(overrides=f'\t"{JOB}" => disabled\n'),
        said(overrides=f'\t"{JOB}.health" => true\n'),
        said(changed="999402 998000"),
        said(changed="999000 stat: no such file"),
        said(elapsed=""),
        said(now=""),
    ],
)
def test_a_service_with_anything_amiss_does_not_run(lines):
    assert not parse_daemon(lines).runs(DIGEST)


def test_a_service_with_another_plan_does_not_run_this_one():
    assert not parse_daemon(said()).runs("f" * 64)
    assert not ABSENT.runs("")


@pytest.mark.parametrize("overrides", ["", f'\t"{JOB}" => enabled\n', f'\t"{JOB}" => false\n'])
def test_a_job_that_nobody_has_disabled_is_enabled(overrides):
    assert parse_daemon(said(overrides=overrides)).enabled


@pytest.mark.parametrize(
    ("elapsed", "seconds"),
    [
        ("00:05", 5),
        ("   10:00", 600),
        ("01:00:00", 3600),
        ("2-03:04:05", 2 * 86400 + 3 * 3600 + 245),
        ("41-00:00:00", 3542400),
    ],
)
def test_the_time_since_a_process_began_is_read_as_ps_prints_it(elapsed, seconds):
    began = 10_000_000 - seconds
    assert parse_daemon(said(now="10000000", elapsed=elapsed, changed=str(began))).current
    assert not parse_daemon(said(now="10000000", elapsed=elapsed, changed=str(began + 2))).current


# the commands, with real processes


@each_shell
def test_a_loaded_service_is_told_from_the_host(mac, shell):
    assert mac.script(shell, "load-mac.sh", mac.root, "chat", 50).returncode == 0
    link, key = mac.path("/opt/rackserve/current/llama.cpp"), mac.path("/etc/rackserve/credentials/chat/api-key")
    for path in (link, key):
        os.utime(path, (time.time() - 3600,) * 2)
    command = Daemon().command(JOB, f"{JOB}.health", [str(link), str(key)])
    state = Daemon().process(asked(mac, shell, command))
    assert state.runs(state.daemon.digest)
    assert state.daemon.pid == mac.pid(JOB)
    os.utime(key, (time.time() + 5,) * 2)
    assert not Daemon().process(asked(mac, shell, command)).current
    mac.launchctl("disable", f"system/{JOB}.health")
    assert not Daemon().process(asked(mac, shell, command)).enabled
    mac.launchctl("bootout", f"system/{JOB}")
    until(lambda: not mac.pid(JOB), "it is out")
    assert not Daemon().process(asked(mac, shell, command)).current


@each_shell
def test_a_bare_mac_has_no_service(bare, shell):
    command = Daemon().command(JOB, f"{JOB}.health", ["/nothing"])
    state = Daemon().process(asked(bare, shell, command))
    assert (state.daemon, state.watch, state.current) == (Job(), Job(), False)


def test_daemons_are_listed_by_their_files():
    folder = "/Library/LaunchDaemons"
    names = (
        "io.rackserve.chat.plist",
        "io.rackserve.chat.health.plist",
        "io.rackserve.gpu-memory.plist",
        "com.x.plist",
    )
    assert InstalledDaemons().process([f"{folder}/{name}" for name in names]) == ("chat", "gpu-memory")
    assert InstalledDaemons().process(["ls: no matches found"]) == ()


@each_shell
def test_files_are_told_with_owner_mode_and_checksum(bare, shell):
    file = bare.path("/opt/it's $HOME; a file")
    file.write_text("abc")
    file.chmod(0o440)
    link = bare.path("/opt/link")
    link.symlink_to(file)
    bare.run(bare.tools / "chown", "root:staff", file)
    paths = [str(file), str(link), "/nothing"]
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    told = MacPaths().process(asked(bare, shell, MacPaths().command(paths)))
    assert told == {str(file): PathState("440", "root", "staff", 3, sha256)}
    told = MacPaths().process(asked(bare, shell, MacPaths().command(paths, hash_content=False)))
    assert told[str(file)].sha256 == "-"


# accounts, as dscl prints them

MADE = """\
dsAttrTypeNative:IsHidden: 1
PrimaryGroupID: 499
UniqueID: 499
UserShell: /usr/bin/false
Group: 499
Home: 700 _rackserve-chat _rackserve-chat
"""


def test_an_account_as_it_should_be_is_private():
    assert parse_account(MADE.splitlines()).is_private("_rackserve-chat")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("dsAttrTypeNative:IsHidden: 1", "No such key: IsHidden"),
        ("PrimaryGroupID: 499", "PrimaryGroupID: 20"),
        ("Group: 499", "Group: "),
        ("UniqueID: 499", "UniqueID: 501"),
        ("/usr/bin/false", "/bin/zsh"),
        ("Home: 700", "Home: 755"),
        ("Home: 700 _rackserve-chat", "Home: 700 root"),
    ],
)
def test_an_account_with_anything_amiss_is_not(old, new):
    assert old in MADE
    assert not parse_account(MADE.replace(old, new).splitlines()).is_private("_rackserve-chat")


@each_shell
def test_an_account_is_told_from_the_host(bare, shell):
    home = bare.path("/var/lib/rackserve/chat")
    command = Account().command("_rackserve-chat", str(home))
    assert not Account().process(asked(bare, shell, command)).is_private("_rackserve-chat")
    assert bare.script(shell, "user-mac.sh", "_rackserve-chat", home).returncode == 0
    assert Account().process(asked(bare, shell, command)).is_private("_rackserve-chat")
