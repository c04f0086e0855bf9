"""What snapshot.py refuses: wrong content, full disks, closed doors, hubs that are none. Nothing of it stays behind."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.operations.hub_bench import (
    INDEX,
    NAME,
    OTHER_SHARD,
    REPO,
    REVISION,
    SHARD,
    WANTED,
    HubServer,
    assert_in_place,
    entry,
    folder_files,
    refusal,
    run,
    send,
    serving,
    start,
)

CANARY = "hf_thisIsTheCanary0123456789"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serving(HubServer()) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models" / f"{NAME}@{REVISION}"


# content


@pytest.mark.parametrize("size", [len(WANTED[SHARD]), 1000])
def test_weights_with_a_wrong_checksum_are_told_and_not_left_behind(hub, folder, size):
    hub.served = {SHARD: b"x" * size}
    told = refusal(hub, folder)
    expected, found = (hashlib.sha256(content).hexdigest() for content in (WANTED[SHARD], b"x" * size))
    assert told == f"not used: {REPO} {SHARD}: SHA-256 is {found}, expected {expected}"
    left = folder_files(folder.parent / ".staging" / folder.name)
    assert SHARD not in left
    assert all(WANTED[path] == content for path, content in left.items())


def test_a_small_file_is_compared_with_gits_name_for_its_content(hub, folder):
    hub.served = {"config.json": b'{"model_type": "other"}\n'}
    assert f"not used: {REPO} config.json: git's SHA-1 is " in refusal(hub, folder)
    hub.served = {}
    assert run(hub.url, folder).returncode == 0
    assert_in_place(folder)


def test_a_file_that_is_longer_than_listed_does_not_fill_the_disk(hub, folder):
    hub.served = {SHARD: bytes(2**20)}
    assert "Maximum file size exceeded" in refusal(hub, folder)
    assert (folder.parent / ".staging" / folder.name / SHARD).stat().st_size == 0


def test_weights_that_the_index_names_and_nobody_uploaded_are_told_before_weights_are_fetched(hub, folder):
    del hub.files[OTHER_SHARD]
    assert refusal(hub, folder) == f"not used: {REPO} lacks 1 files that its {INDEX} names, {OTHER_SHARD} first"
    assert SHARD not in hub.fetched()


@pytest.mark.parametrize("index", [b"{", b"[]", b"{}", b'{"weight_map": []}', b'{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none_is_told(hub, folder, index):
    hub.files[INDEX] = index
    assert INDEX in refusal(hub, folder)


# space


def test_too_little_space_for_all_of_it_is_told_before_anything_is_fetched(hub, folder):
    hub.listing = [entry("z.safetensors", b"", lfs={"oid": "0" * 64, "size": 10**18})]
    told = refusal(hub, folder)
    total = 10**18 + sum(map(len, WANTED.values()))
    assert f"{(total + 16 * 2**20) // 2**20 + 1} MiB are needed for {REPO}" in told
    assert f"{folder.parent} has " in told
    assert hub.fetched() == []


# doors


@pytest.mark.parametrize("private", [False, True])
def test_a_gated_model_without_a_token_is_told_with_the_setting_that_gives_one(hub, folder, private):
    hub.token, hub.private = CANARY, private
    told = refusal(hub, folder)
    assert told.startswith(f"not fetched: {REPO}: {hub.url} answers 401: ")
    assert "name a file with a token that may read it as hf_token_file" in told


def test_a_token_without_access_is_told_with_where_to_get_it(hub, folder):
    hub.token = CANARY
    told = refusal(hub, folder, "hf_another")
    assert f"answers 403: the token in hf_token_file may not read it: ask for access at {hub.url}/{REPO}" in told
    assert "hf_another" not in told


@pytest.mark.parametrize("private", [False, True])
def test_a_token_opens_the_door(hub, folder, private):
    hub.token, hub.private = CANARY, private
    done = run(hub.url, folder, token=CANARY)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert_in_place(folder)


def test_a_token_goes_to_the_hub_alone(hub, folder):
    hub.token = CANARY
    with serving(HubServer()) as cdn:
        # Another port would be the same host to some versions of curl.
        hub.cdn = cdn.url.replace("127.0.0.1", "localhost")
        assert run(hub.url, folder, token=CANARY).returncode == 0
        assert cdn.asked
        assert {token for _, _, token in cdn.asked} == {None}
    assert {token for _, _, token in hub.asked} == {f"Bearer {CANARY}"}


def test_a_token_is_in_no_argument_environment_or_file(hub, folder):
    hub.token, hub.hold, hub.cut_after = CANARY, threading.Event(), 100_000
    process = start(hub.url, folder, token=CANARY)
    deadline = time.monotonic() + 30
    while not hub.ranges_of(OTHER_SHARD):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    seen = b""
    for name in ("cmdline", "environ"):
        for path in Path("/proc").glob(f"[0-9]*/{name}"):
            try:
                seen += path.read_bytes()
            except OSError:
                continue
    # It does see what goes by.
    assert OTHER_SHARD.encode() in seen
    assert CANARY.encode() not in seen
    files = [path for path in folder.parent.parent.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]
    hub.hold.set()
    assert process.communicate(timeout=60) == ("", "")


# hubs


def test_a_repository_or_revision_that_is_not_there_is_told_with_its_address(hub, folder):
    hub.status = {f"/api/models/{REPO}/tree/{REVISION}": 404}
    told = refusal(hub, folder)
    assert (f"{hub.url}/api/models/{REPO}/tree/{REVISION}" in told, "404" in told) == (True, True)


def test_trouble_that_passes_is_waited_out(folder):
    class Recovering(HubServer):
        def answer(self, handler: Any) -> None:
            self.status = {} if len(self.asked) % 2 else {handler.path.partition("?")[0]: 503, SHARD: 429}
            super().answer(handler)

    with serving(Recovering()) as troubled:
        assert run(troubled.url, folder).returncode == 0
    assert_in_place(folder)


def test_a_dead_hub_is_told_with_its_address(folder):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = HubServer(url=f"http://127.0.0.1:{unused.getsockname()[1]}")
        told = refusal(dead, folder)
    assert told.startswith(f"not fetched: {dead.url}/api/models/{REPO}/tree/{REVISION}")


@pytest.mark.parametrize("answer", [b"<html>", b"{}", b"", b"[1, 2"])
def test_a_server_that_is_no_hub_is_told(folder, answer):
    class Other(HubServer):
        def answer(self, handler: Any) -> None:
            send(handler, 200, answer)

    with serving(Other()) as other:
        assert f"not fetched: {other.url}/api/models/{REPO}/tree/" in refusal(other, folder)


@pytest.mark.parametrize("sha", ["main", "../../x", "5" * 39, ""])
def test_main_that_is_no_commit_is_refused(hub, tmp_path, sha):
    hub.main = sha
    done = run(hub.url, tmp_path / "models" / f"{NAME}@main", "main")
    assert (done.returncode, "does not say which commit main" in done.stderr) == (1, True)
    assert not list((tmp_path / "models").glob(f"{NAME}*"))


def test_folders_that_cannot_be_made_are_no_success(hub, tmp_path):
    (tmp_path / "models").write_text("a file")
    done = run(hub.url, tmp_path / "models" / f"{NAME}@{REVISION}")
    assert done.returncode == 1
    assert str(tmp_path / "models") in done.stderr
