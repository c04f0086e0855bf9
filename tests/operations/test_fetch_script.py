"""fetch.sh against a real server: nothing unverified ever has the final name, and a success is one."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.operations.scripting import FileServer, run, serving, start

CONTENT = b"".join(hashlib.sha256(bytes([index % 256, index // 256])).digest() for index in range(9375))
SHA256 = hashlib.sha256(CONTENT).hexdigest()
CANARY = "hf_a $(id) 'canary'"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(FileServer(CONTENT)) as made:
        yield made


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "models" / "repo@revision" / "model.gguf"


def part_of(destination: Path, sha256: str = SHA256) -> Path:
    return destination.parent.parent / ".staging" / sha256


def leave_part(destination: Path, content: bytes) -> None:
    part_of(destination).parent.mkdir(parents=True)
    part_of(destination).write_bytes(content)


def _arguments() -> Iterator[bytes]:
    """Of every process on this machine, as anybody can read them."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes()


def assert_in_place(destination: Path) -> None:
    assert destination.read_bytes() == CONTENT
    assert destination.stat().st_mode & 0o7777 == 0o644
    assert list(part_of(destination).parent.iterdir()) == []


@pytest.mark.parametrize("size", [len(CONTENT), 0])
def test_a_file_is_fetched(server, destination, size):
    done = run("fetch.sh", server.url, SHA256, size, destination)
    assert (done.returncode, done.stderr) == (0, "")
    assert_in_place(destination)


def test_a_path_with_anything_in_it_is_a_path(server, tmp_path):
    destination = tmp_path / "it's a $HOME; folder" / "-x" / "a b.gguf"
    assert run("fetch.sh", server.url, SHA256, 0, destination).returncode == 0
    assert_in_place(destination)


def test_what_is_in_place_is_not_fetched_again(server, destination):
    destination.parent.mkdir(parents=True)
    destination.write_bytes(CONTENT)
    assert run("fetch.sh", server.url, SHA256, 0, destination).returncode == 0
    assert server.asked == []


def test_what_is_in_place_and_wrong_is_replaced(server, destination):
    destination.parent.mkdir(parents=True)
    destination.write_bytes(b"an older revision")
    assert run("fetch.sh", server.url, SHA256, 0, destination).returncode == 0
    assert_in_place(destination)


def test_an_interrupted_download_goes_on_where_it_stopped(server, destination):
    leave_part(destination, CONTENT[:200_000])
    assert run("fetch.sh", server.url, SHA256, len(CONTENT), destination).returncode == 0
    assert server.asked == ["bytes=200000-"]
    assert_in_place(destination)


@pytest.mark.parametrize(
    "part",
    [CONTENT, CONTENT + b"too much", b"x" * 200_000, b"x" * len(CONTENT)],
    ids=["whole", "too long", "of another file", "whole but wrong"],
)
def test_a_part_of_any_kind_ends_in_the_right_file(server, destination, part):
    leave_part(destination, part)
    done = run("fetch.sh", server.url, SHA256, len(CONTENT), destination)
    assert (done.returncode, done.stderr) == (0, "")
    assert_in_place(destination)


def test_a_server_that_cannot_resume_is_asked_for_the_whole_file(server, destination):
    server.ranges = False
    leave_part(destination, CONTENT[:1000])
    assert run("fetch.sh", server.url, SHA256, len(CONTENT), destination).returncode == 0
    assert server.asked[-1] is None
    assert_in_place(destination)


def test_a_wrong_checksum_leaves_nothing_and_tells_both(server, destination):
    server.content = b"something else"
    done = run("fetch.sh", server.url, SHA256, 0, destination)
    assert done.returncode == 1
    assert SHA256 in done.stderr
    assert hashlib.sha256(b"something else").hexdigest() in done.stderr
    assert not destination.exists()
    assert not part_of(destination).exists()


def test_a_connection_that_is_cut_leaves_the_part_for_the_next_run(server, destination):
    server.cut_after = 100_000
    done = run("fetch.sh", server.url, SHA256, len(CONTENT), destination)
    assert done.returncode == 1
    assert server.url in done.stderr
    assert not destination.exists()
    server.cut_after = None
    assert run("fetch.sh", server.url, SHA256, len(CONTENT), destination).returncode == 0
    assert_in_place(destination)


def test_a_missing_file_is_told_with_its_address(server, destination):
    server.status = 404
    done = run("fetch.sh", server.url, SHA256, 0, destination)
    assert done.returncode == 1
    assert (server.url in done.stderr, "404" in done.stderr) == (True, True)
    assert not destination.exists()


def test_a_file_that_is_given_out_to_some_only_is_fetched_with_the_token(server, destination):
    server.token, server.delay_s = CANARY, 1
    process = start("fetch.sh", server.url, SHA256, 0, destination, token=CANARY)
    while not server.asked:
        assert process.poll() is None
        time.sleep(0.01)
    arguments = list(_arguments())
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err, CANARY in out) == (0, "", False)
    assert_in_place(destination)
    assert any(server.url.encode() in argument for argument in arguments)
    assert not any(CANARY.encode() in argument for argument in arguments)


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("", "name a file with a token that may read it as hf_token_file"),
        ("hf_other", "the token in hf_token_file may not"),
    ],
)
def test_a_file_that_is_not_given_out_is_told_with_what_would_help(server, destination, token, told):
    server.token = CANARY
    done = run("fetch.sh", server.url, SHA256, 0, destination, token=token)
    assert done.returncode == 1
    assert (server.url in done.stderr, told in done.stderr) == (True, True)


def test_what_is_on_no_hub_gets_no_advice_about_tokens(server, destination):
    server.token = CANARY
    said = run("fetch.sh", server.url, SHA256, 0, destination).stderr
    assert ("error: 401" in said, "hf_token_file" in said) == (True, False)


def test_the_token_is_not_sent_on_to_another_host(destination):
    with serving(FileServer(CONTENT)) as elsewhere, serving(FileServer(CONTENT)) as hub:
        hub.token, hub.sent_on_to = CANARY, elsewhere.url.replace("127.0.0.1", "localhost")
        done = run("fetch.sh", hub.url, SHA256, 0, destination, token=CANARY)
    assert (done.returncode, hub.authorized, elsewhere.authorized) == (0, [f"Bearer {CANARY}"], [None])


def test_a_dead_server_is_told_with_its_address(destination):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        done = run("fetch.sh", url, SHA256, 0, destination)
    assert done.returncode == 1
    assert url in done.stderr
    assert not destination.exists()


def test_too_little_space_is_told_before_anything_is_fetched(server, destination):
    done = run("fetch.sh", server.url, SHA256, 10**18, destination)
    assert done.returncode == 1
    assert f"{10**18 // 2**20 + 17} MiB are needed" in done.stderr
    assert "MiB free" in done.stderr
    assert server.asked == []


def test_two_runs_at_once_fetch_once(server, destination):
    server.delay_s = 0.5
    runs = [start("fetch.sh", server.url, SHA256, len(CONTENT), destination) for _ in range(2)]
    assert [process.communicate(timeout=60)[1] for process in runs] == ["", ""]
    assert [process.returncode for process in runs] == [0, 0]
    assert len(server.asked) == 1
    assert destination.read_bytes() == CONTENT


def test_a_file_that_cannot_get_its_final_name_is_no_success(server, destination):
    destination.mkdir(parents=True)
    assert run("fetch.sh", server.url, SHA256, 0, destination).returncode != 0


def test_a_folder_that_cannot_be_made_is_no_success(server, destination):
    destination.parent.parent.mkdir(parents=True)
    destination.parent.write_text("a file")
    assert run("fetch.sh", server.url, SHA256, 0, destination).returncode != 0


def test_nothing_is_left_open_to_others_while_it_arrives(server, destination):
    assert run("fetch.sh", server.url, SHA256, 0, destination).returncode == 0
    assert part_of(destination).parent.stat().st_mode & 0o022 == 0


def test_a_long_transfer_says_how_far_it_is_and_keeps_no_connection_open(destination):
    # The server hesitates for longer than one beat.
    with serving(FileServer(CONTENT, delay_s=17)) as slow:
        started = time.monotonic()
        done = run("fetch.sh", slow.url, SHA256, len(CONTENT), destination)
        took = time.monotonic() - started
    assert_in_place(destination)
    assert f"MiB of {slow.url}" in done.stdout
    # A sleep left over, with our output open, would have kept the end of the run from being seen until its next beat.
    assert took < 17 + 10
