"""user-mac.sh, fetch-mac.sh, release-mac.sh, activate-mac.sh: whole, or not there, with the reason."""

from __future__ import annotations

import hashlib
import os
import time

import pytest

from tests.macos.mac import Mac, each_shell
from tests.operations.scripting import FileServer, serving
from tests.operations.test_release_scripts import GOOD, archive

ACCOUNT, HOME = "_rackserve-chat", "/var/lib/rackserve/chat"
CONTENT = b"".join(hashlib.sha256(bytes([index % 256, index // 256])).digest() for index in range(9375))
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def record(mac: Mac, kind: str) -> dict[str, str]:
    folder = mac.state / "ds" / kind / ACCOUNT
    return {path.name: path.read_text() for path in folder.iterdir()} if folder.is_dir() else {}


def make_user(mac: Mac, shell: str):
    return mac.script(shell, "user-mac.sh", ACCOUNT, mac.path(HOME))


# accounts


@each_shell
def test_an_account_is_hidden_has_no_login_and_owns_its_folder_alone(bare, shell):
    done = make_user(bare, shell)
    assert (done.returncode, done.stderr) == (0, "")
    number = record(bare, "Groups")["PrimaryGroupID"]
    assert record(bare, "Users") == {
        "UniqueID": number,
        "PrimaryGroupID": number,
        "UserShell": "/usr/bin/false",
        "RealName": ACCOUNT,
        "Password": "*",
        "IsHidden": "1",
        "NFSHomeDirectory": "/var/empty",
    }
    assert 400 <= int(number) < 500
    assert bare.path(HOME).stat().st_mode & 0o777 == 0o700
    assert bare.owners()[HOME] == f"{ACCOUNT}:{ACCOUNT}"
    assert bare.path("/var/lib/rackserve").stat().st_mode & 0o777 == 0o755


@each_shell
def test_an_id_that_a_user_or_a_group_has_is_not_given_again(bare, shell):
    bare.put_account("_nixbld1", 499)
    group = bare.state / "ds" / "Groups" / "staff2"
    group.mkdir()
    (group / "PrimaryGroupID").write_text("498")
    assert make_user(bare, shell).returncode == 0
    assert record(bare, "Users")["UniqueID"] == "497"


@each_shell
def test_an_account_that_is_half_made_is_completed_under_the_id_that_it_has(bare, shell):
    bare.put_account(ACCOUNT, 450)
    assert make_user(bare, shell).returncode == 0
    assert make_user(bare, shell).returncode == 0
    assert (record(bare, "Users")["UniqueID"], record(bare, "Users")["PrimaryGroupID"]) == ("450", "450")
    assert record(bare, "Users")["IsHidden"] == "1"


@each_shell
def test_a_mac_that_guards_its_accounts_is_told_with_the_way_out(bare, shell):
    (bare.state / "guarded").write_text("all")
    done = make_user(bare, shell)
    assert done.returncode == 1
    assert "eDSPermissionError" in done.stderr
    assert "allow full disk access for remote users" in done.stderr


@each_shell
def test_a_home_that_cannot_be_set_does_not_matter(bare, shell):
    (bare.state / "guarded").write_text("some")
    assert make_user(bare, shell).returncode == 0
    assert "NFSHomeDirectory" not in record(bare, "Users")


def test_a_mac_without_a_free_id_is_told(bare):
    bare.tool("dscl", "#!/bin/sh\n[ $2 = -list ] || exit 1\nseq 400 499 | sed 's/^/_other  /'\n")
    done = make_user(bare, "dash")
    assert (done.returncode, done.stderr) == (1, f"no id from 400 to 499 is free for {ACCOUNT}\n")


# files


@pytest.fixture
def destination(bare):
    return bare.path("/opt/models/repo@revision/model.gguf")


def part_of(destination):
    return destination.parent.parent / ".staging" / SHA256


@pytest.fixture
def server():
    with serving(FileServer(CONTENT)) as made:
        yield made


def assert_in_place(destination):
    assert destination.read_bytes() == CONTENT
    assert destination.stat().st_mode & 0o7777 == 0o644
    assert list(part_of(destination).parent.iterdir()) == []


@each_shell
@pytest.mark.parametrize("size", [len(CONTENT), 0])
def test_a_file_is_fetched_once(bare, server, destination, size, shell):
    for _ in range(2):
        done = bare.script(shell, "fetch-mac.sh", server.url, SHA256, size, destination)
        assert (done.returncode, done.stderr) == (0, "")
    assert_in_place(destination)
    assert server.asked == [None]


@each_shell
def test_a_file_is_verified_by_the_kind_of_checksum_that_it_comes_with(bare, server, destination, shell):
    wrong, right = hashlib.sha512(b"x").hexdigest(), hashlib.sha512(CONTENT).hexdigest()
    done = bare.script(shell, "fetch-mac.sh", server.url, wrong, 0, destination)
    assert (done.returncode, destination.exists()) == (1, False)
    assert right in done.stderr
    assert bare.script(shell, "fetch-mac.sh", server.url, right, 0, destination).returncode == 0
    assert_in_place(destination)


@each_shell
def test_an_interrupted_download_goes_on_where_it_stopped(bare, server, destination, shell):
    server.cut_after = 100_000
    done = bare.script(shell, "fetch-mac.sh", server.url, SHA256, len(CONTENT), destination)
    assert done.returncode == 1
    assert server.url in done.stderr
    assert not destination.exists()
    server.cut_after = None
    had = part_of(destination).stat().st_size
    assert 0 < had < len(CONTENT)
    done = bare.script(shell, "fetch-mac.sh", server.url, SHA256, len(CONTENT), destination)
    assert (done.returncode, done.stderr) == (0, "")
    assert server.asked[-1] == f"bytes={had}-"
    assert_in_place(destination)


@each_shell
@pytest.mark.parametrize(
    "part",
    [CONTENT, CONTENT + b"too much", b"x" * 200_000, b"x" * len(CONTENT)],
    ids=["whole", "too long", "of another file", "whole but wrong"],
)
def test_a_part_of_any_kind_ends_in_the_right_file(bare, server, destination, part, shell):
    part_of(destination).parent.mkdir(parents=True)
    part_of(destination).write_bytes(part)
    done = bare.script(shell, "fetch-mac.sh", server.url, SHA256, len(CONTENT), destination)
    assert (done.returncode, done.stderr) == (0, "")
    assert_in_place(destination)


@each_shell
def test_a_server_that_cannot_resume_is_asked_for_all_of_it(bare, server, destination, shell):
    server.ranges = False
    part_of(destination).parent.mkdir(parents=True)
    part_of(destination).write_bytes(CONTENT[:1000])
    assert bare.script(shell, "fetch-mac.sh", server.url, SHA256, len(CONTENT), destination).returncode == 0
    assert_in_place(destination)


@each_shell
def test_a_wrong_checksum_leaves_nothing_and_tells_both(bare, server, destination, shell):
    server.content = b"something else"
    done = bare.script(shell, "fetch-mac.sh", server.url, SHA256, 0, destination)
    assert done.returncode == 1
    assert SHA256 in done.stderr
    assert hashlib.sha256(b"something else").hexdigest() in done.stderr
    assert not destination.exists()
    assert list(part_of(destination).parent.iterdir()) == []


@each_shell
def test_a_volume_that_is_too_small_is_told_before_anything_is_fetched(bare, server, destination, shell):
    bare.tool("df", "#!/bin/sh\necho Filesystem\necho /dev/disk3s1s1 1000 500 20 96% /\n")
    done = bare.script(shell, "fetch-mac.sh", server.url, SHA256, 10**9, destination)
    assert done.returncode == 1
    assert "has 0 MiB free, 969 MiB are needed" in done.stderr
    assert server.asked == []


# Its process is gone; its number means another process since the Mac was started anew.
@pytest.mark.parametrize("holder", ["4194305@{boot}", "{here}@an-earlier-boot"])
@each_shell
def test_a_lock_of_a_run_that_is_gone_holds_nobody(bare, server, destination, shell, holder):
    part_of(destination).parent.mkdir(parents=True)
    part_of(destination).with_name(f"{SHA256}.lock").symlink_to(holder.format(boot=bare.boot, here=os.getpid()))
    assert bare.script(shell, "fetch-mac.sh", server.url, SHA256, 0, destination).returncode == 0
    assert_in_place(destination)


def test_a_lock_of_a_run_that_goes_on_is_waited_for(bare, server, destination):
    lock = part_of(destination).with_name(f"{SHA256}.lock")
    lock.parent.mkdir(parents=True)
    lock.symlink_to(f"{os.getpid()}@{bare.boot}")
    bare.tool("sleep", f'#!/bin/sh\n[ $1 != 1 ] || rm -f "{lock}"\nexec /bin/sleep 0.1\n')
    assert bare.script("dash", "fetch-mac.sh", server.url, SHA256, 0, destination).returncode == 0
    assert_in_place(destination)


# releases


@pytest.fixture
def release(bare):
    bare.path("/opt/rackserve/releases").mkdir(parents=True)
    return bare.path("/opt/rackserve/releases/llama.cpp-new")


@each_shell
@pytest.mark.parametrize("inside", ["bin/llama-server", "llama-b1/llama-server", "a/b/llama-server", "llama-server"])
def test_an_archives_program_is_found_beside_its_libraries(bare, release, tmp_path, inside, shell):
    library = f"{inside.removesuffix('llama-server')}libllama.dylib"
    path = archive(tmp_path / "a.tar.gz", (inside, GOOD, 0o755), (library, "code", 0o600))
    done = bare.script(shell, "release-mac.sh", release, path, "bin/llama-server")
    assert (done.returncode, done.stderr) == (0, "")
    assert os.access(release / "bin" / "llama-server", os.X_OK)
    # Where dyld looks for it, whether or not it resolves links first.
    assert (release / "bin" / "libllama.dylib").read_text() == "code"
    assert (release / library).stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in release.parent.iterdir()] == [release.name]


@each_shell
@pytest.mark.parametrize(
    "bad",
    [
        (("README", "x", 0o644), "no llama-server"),
        (("../../evil", "x", 0o644), "not unpacked"),
        (
            ("bin/llama-server", "#!/bin/sh\necho Killed: 9 >&2\nexit 137\n", 0o755),
            "does not run on this host: Killed: 9",
        ),
    ],
    ids=["other", "member outside", "does not run"],
)
def test_a_bad_archive_is_refused_with_the_reason_and_leaves_nothing(bare, release, tmp_path, bad, shell):
    member, reason = bad
    path = archive(tmp_path / "a.tar.gz", member)
    done = bare.script(shell, "release-mac.sh", release, path, "bin/llama-server")
    assert done.returncode == 1
    assert reason in done.stderr
    assert list(release.parent.iterdir()) == []


@each_shell
def test_a_program_in_quarantine_is_refused_with_what_it_means(bare, release, tmp_path, shell):
    (bare.state / "quarantine").touch()
    path = archive(tmp_path / "a.tar.gz", ("llama-server", GOOD, 0o755))
    done = bare.script(shell, "release-mac.sh", release, path, "bin/llama-server")
    assert done.returncode == 1
    assert "is quarantined (0083;5991b778;Safari;)" in done.stderr
    assert not release.exists()


@each_shell
def test_the_link_leads_to_the_release_and_the_newest_stay(bare, release, shell):
    link = bare.path("/opt/rackserve/current/llama.cpp")
    for number in range(5):
        folder = release.with_name(f"llama.cpp-{number}")
        folder.mkdir()
        os.utime(folder, (time.time() - 100 + number,) * 2)
        done = bare.script(shell, "activate-mac.sh", folder, link, 3)
        assert (done.returncode, done.stderr) == (0, "")
        assert link.readlink() == folder
    other = release.with_name("ollama-0")
    other.mkdir()
    # An older one again: it is the newest then.
    assert bare.script(shell, "activate-mac.sh", release.with_name("llama.cpp-2"), link, 2).returncode == 0
    assert link.readlink() == release.with_name("llama.cpp-2")
    left = {entry.name for entry in release.parent.iterdir()}
    assert left == {"llama.cpp-2", "llama.cpp-4", "ollama-0"}


@each_shell
def test_a_release_that_is_not_there_is_not_linked_to(bare, release, shell):
    link = bare.path("/opt/rackserve/current/llama.cpp")
    done = bare.script(shell, "activate-mac.sh", release, link, 3)
    assert (done.returncode, done.stderr) == (1, f"no such release: {release}\n")
    assert not link.is_symlink()


@each_shell
def test_uninstalling_removes_what_it_is_told_and_nothing_else(bare, shell):
    bare.path("/opt/models").mkdir()
    bare.path("/opt/rackserve/x y").mkdir(parents=True)
    done = bare.script(shell, "uninstall-mac.sh", bare.path("/opt/rackserve"), bare.path("/opt/nothing"))
    assert (done.returncode, done.stderr) == (0, "")
    assert [entry.name for entry in bare.path("/opt").iterdir()] == ["models"]
