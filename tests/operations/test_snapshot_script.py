"""snapshot.py against a real hub: a model's folder is complete and verified before it has its name."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.operations.hub_bench import (
    MANIFEST,
    NAME,
    OTHER_SHARD,
    REPO,
    REVISION,
    SHARD,
    WANTED,
    HubServer,
    assert_in_place,
    folder_files,
    run,
    serving,
    start,
)

LATER = "7" * 40


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serving(HubServer()) as made:
        yield made


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def folder(models: Path) -> Path:
    return models / f"{NAME}@{REVISION}"


@pytest.fixture
def branch(models: Path) -> Path:
    return models / f"{NAME}@main"


def part_of(folder: Path, file: str) -> Path:
    return folder.parent / ".staging" / folder.name / file


def leave_part(folder: Path, file: str, content: bytes) -> None:
    part_of(folder, file).parent.mkdir(parents=True, exist_ok=True)
    part_of(folder, file).write_bytes(content)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# what is fetched


def test_what_a_server_needs_is_fetched_and_nothing_else(hub, folder):
    done = run(hub.url, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert_in_place(folder)
    assert sorted(hub.fetched()) == sorted(name for name in WANTED if WANTED[name])


def test_the_manifest_names_what_it_is(hub, folder):
    assert run(hub.url + "/", folder).returncode == 0
    manifest = json.loads((folder / MANIFEST).read_text())
    assert (manifest["hub"], manifest["repo"], manifest["revision"]) == (hub.url, REPO, REVISION)


@pytest.mark.parametrize("page", [1, 4])
def test_a_listing_of_many_pages_is_read_to_its_end(hub, folder, page):
    hub.page = page
    assert run(hub.url, folder).returncode == 0
    assert_in_place(folder)


def test_weights_in_mistrals_own_format_are_taken_where_there_are_no_others(hub, folder):
    files = {"params.json": b"{}", "tekken.json": b"{}", "consolidated.safetensors": b"weights"}
    hub.files = {**files, "README.md": b""}
    assert run(hub.url, folder).returncode == 0
    assert_in_place(folder, files)


def test_a_path_with_anything_in_it_is_a_path(hub, tmp_path):
    folder = tmp_path / "it's a $HOME; folder" / f"{NAME}@{REVISION}"
    hub.files = WANTED | {"vocab 100%.json": b"{}", "ünïcode #1?.json": b"[]"}
    assert run(hub.url, folder).returncode == 0
    assert_in_place(folder, hub.files)


def test_files_that_the_hub_keeps_elsewhere_are_fetched_from_there(hub, folder):
    with serving(HubServer()) as cdn:
        hub.cdn = cdn.url
        leave_part(folder, SHARD, WANTED[SHARD][:1000])
        assert run(hub.url, folder).returncode == 0
        assert_in_place(folder)
        assert cdn.ranges_of(SHARD) == ["bytes=1000-"]


# again


def test_a_model_in_place_is_not_fetched_again(hub, folder):
    assert run(hub.url, folder).returncode == 0
    hub.asked.clear()
    assert run(hub.url, folder).returncode == 0
    assert hub.asked == []
    assert_in_place(folder)


@pytest.mark.parametrize("lost", [SHARD, "tokenizer.json", "additional_chat_templates/tools.jinja", "config.json"])
def test_a_folder_that_lost_a_file_gets_that_file_again(hub, folder, lost):
    assert run(hub.url, folder).returncode == 0
    (folder / lost).unlink()
    hub.asked.clear()
    assert run(hub.url, folder).returncode == 0
    assert hub.fetched() == [lost]
    assert_in_place(folder)


def test_a_damaged_folder_keeps_its_name_while_the_hub_is_away(hub, folder):
    assert run(hub.url, folder).returncode == 0
    (folder / "config.json").write_bytes(b"cut")
    hub.status = {f"/api/models/{REPO}/tree/{REVISION}": 404}
    assert run(hub.url, folder).returncode == 1
    assert (folder / SHARD).exists()


def test_a_folder_that_no_run_made_is_not_touched(hub, folder):
    folder.mkdir(parents=True)
    (folder / "mine.gguf").write_bytes(b"x")
    done = run(hub.url, folder)
    assert done.returncode == 1
    assert f"{folder} is there, but not complete and not ours: move it away" in done.stderr
    assert folder_files(folder) == {"mine.gguf": b"x"}


# main


def test_main_is_what_it_was_at_the_first_fetch(hub, folder, branch):
    assert run(hub.url, branch, "main").returncode == 0
    assert str(branch.readlink()) == folder.name
    assert_in_place(folder)
    hub.main = LATER
    hub.asked.clear()
    assert run(hub.url, branch, "main").returncode == 0
    assert (str(branch.readlink()), hub.asked) == (folder.name, [])


def test_main_whose_folder_is_gone_is_fetched_as_it_was(hub, folder, branch):
    folder.parent.mkdir()
    branch.symlink_to(folder.name)
    hub.main = LATER
    assert run(hub.url, branch, "main").returncode == 0
    assert str(branch.readlink()) == folder.name
    assert_in_place(folder)


def test_a_stated_revision_is_fetched_beside_main(hub, folder, branch):
    assert run(hub.url, branch, "main").returncode == 0
    later = folder.with_name(f"{NAME}@{LATER}")
    assert run(hub.url, later, LATER).returncode == 0
    assert_in_place(later)
    assert str(branch.readlink()) == folder.name


@pytest.mark.parametrize("target", [None, "/srv/elsewhere", f"other@{REVISION}", f"{NAME}@v1"])
def test_main_that_leads_elsewhere_is_left_alone(hub, branch, target):
    branch.parent.mkdir()
    branch.mkdir() if target is None else branch.symlink_to(target)
    done = run(hub.url, branch, "main")
    assert done.returncode == 1
    assert f"{branch} leads to no commit's folder beside it" in done.stderr
    assert hub.fetched() == []


# interrupted


def test_a_file_goes_on_where_it_stopped(hub, folder):
    leave_part(folder, SHARD, WANTED[SHARD][:200_000])
    assert run(hub.url, folder).returncode == 0
    assert hub.ranges_of(SHARD) == ["bytes=200000-"]
    assert_in_place(folder)


@pytest.mark.parametrize(
    "part",
    [WANTED[SHARD], WANTED[SHARD] + b"too much", b"x" * 1000, b"x" * len(WANTED[SHARD])],
    ids=["whole", "too long", "of another file", "whole but wrong"],
)
def test_a_part_of_any_kind_ends_in_the_right_file(hub, folder, part):
    leave_part(folder, SHARD, part)
    leave_part(folder, "left.over", b"x")
    done = run(hub.url, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert_in_place(folder)


def test_connections_that_break_are_taken_up_again_in_the_same_run(hub, folder):
    hub.cut_after = 70_000
    done = run(hub.url, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert hub.ranges_of(SHARD) == [None, *(f"bytes={first}-" for first in (70_000, 140_000, 210_000, 280_000))]
    assert_in_place(folder)


def test_a_server_that_cannot_resume_is_asked_for_the_whole_file(hub, folder):
    hub.ranges = False
    leave_part(folder, SHARD, WANTED[SHARD][:1000])
    assert run(hub.url, folder).returncode == 0
    assert_in_place(folder)


def test_connections_that_never_bring_it_further_end_with_the_reason(hub, folder):
    hub.ranges, hub.cut_after = False, 70_000
    done = run(hub.url, folder)
    assert done.returncode == 1
    assert f"not fetched: {hub.url}/{REPO}/resolve/{REVISION}/{OTHER_SHARD}: curl: (" in done.stderr
    assert not folder.exists()


def killed_half_way(hub: HubServer, folder: Path, by: signal.Signals) -> None:
    hub.hold, hub.cut_after = threading.Event(), 100_000
    process = start(hub.url, folder)
    wait_for(lambda: part_of(folder, OTHER_SHARD).exists() and part_of(folder, OTHER_SHARD).stat().st_size >= 50_000)
    process.send_signal(by)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert not folder.exists()


def test_a_run_that_was_ended_takes_its_transfer_with_it_and_the_next_goes_on(hub, folder):
    killed_half_way(hub, folder, signal.SIGTERM)
    hub.cut_after = None
    assert run(hub.url, folder).returncode == 0
    first, second = hub.ranges_of(OTHER_SHARD)
    assert first is None
    assert second is not None
    assert_in_place(folder)


def test_a_transfer_that_outlives_its_run_is_waited_for(hub, folder):
    killed_half_way(hub, folder, signal.SIGKILL)
    after = start(hub.url, folder, beat_s=0.2)
    assert after.stdout is not None
    # Two writers would mix their bytes in one file.
    assert after.stdout.readline() == f"another run fetches {REPO}: waiting for it\n"
    hub.hold.set()
    assert after.communicate(timeout=60)[1] == ""
    assert len(hub.ranges_of(OTHER_SHARD)) == 1
    assert_in_place(folder)


def test_two_runs_at_once_fetch_once(hub, folder, branch):
    runs = [start(hub.url, folder), start(hub.url, branch, "main"), start(hub.url, branch, "main")]
    assert [process.communicate(timeout=60)[1] for process in runs] == ["", "", ""]
    assert [process.returncode for process in runs] == [0, 0, 0]
    assert sorted(hub.fetched()) == sorted(name for name in WANTED if WANTED[name])
    assert_in_place(folder)
    assert str(branch.readlink()) == folder.name


def test_what_was_begun_of_another_revision_makes_room(hub, folder):
    other = part_of(folder.with_name(f"{NAME}@{LATER}"), SHARD)
    stranger = part_of(folder.with_name(f"{NAME}-2@{LATER}"), SHARD)
    for part in (other, stranger):
        part.parent.mkdir(parents=True)
        part.write_bytes(b"begun")
    assert run(hub.url, folder).returncode == 0
    assert (other.parent.exists(), stranger.exists()) == (False, True)


def test_a_long_transfer_says_how_far_it_is(hub, folder):
    hub.files = WANTED | {SHARD: b"x" * 3 * 2**20, OTHER_SHARD: b"y" * 2**20}
    hub.hold, hub.cut_after = threading.Event(), 2 * 2**20 + 1000
    process = start(hub.url, folder, beat_s=0.2)
    assert process.stdout is not None
    wait_for(lambda: process.stdout.readline() == f"3 of 4 MiB of {REPO}\n")
    hub.hold.set()
    assert process.communicate(timeout=60)[1] == ""
    assert_in_place(folder, hub.files)
