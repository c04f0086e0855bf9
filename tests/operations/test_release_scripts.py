"""release.sh and activate.sh on real folders: a release is complete or not there, and the switch is one step."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tests.operations.scripting import run, start

GOOD = "#!/bin/sh\necho version: 1\n"
Member = tuple[str, str, int]


def archive(path: Path, *members: Member, links: tuple[tuple[str, str], ...] = ()) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, target in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        for name, text, mode in members:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uid, entry.gid = len(text), mode, 12345, 12345
            tar.addfile(entry, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "releases"
    folder.mkdir()
    return folder / "llama.cpp-new"


@pytest.mark.parametrize("inside", ["bin/llama-server", "llama-b1/llama-server", "build/bin/llama-server"])
def test_a_good_archive_becomes_a_release_wherever_its_program_lies(tmp_path, release, inside):
    path = archive(tmp_path / "a.tar.gz", (inside, GOOD, 0o755), ("LICENSE", "MIT", 0o600))
    done = run("release.sh", release, path, "cpu")
    assert (done.returncode, done.stderr) == (0, "")
    assert os.access(release / "bin" / "llama-server", os.X_OK)
    assert (release / "bin" / "llama-server").read_text() == GOOD
    assert (release / "LICENSE").stat().st_mode & 0o7777 == 0o644
    assert [entry.name for entry in release.parent.iterdir()] == [release.name]


def test_a_program_of_a_package_is_linked_to(tmp_path, release):
    program = tmp_path / "usr" / "llama-server"
    program.parent.mkdir()
    program.write_text(GOOD)
    program.chmod(0o755)
    assert run("release.sh", release, program, "cpu").returncode == 0
    assert (release / "bin" / "llama-server").readlink() == program


def test_owner_and_special_bits_of_an_archive_are_not_taken_over(tmp_path, release):
    path = archive(tmp_path / "a.tar.gz", ("bin/llama-server", GOOD, 0o6777), ("bin/tool", "x", 0o4755))
    assert run("release.sh", release, path, "cpu").returncode == 0
    for file in (release / "bin").iterdir():
        assert file.stat().st_mode & 0o7777 == 0o755
        assert file.stat().st_uid == os.geteuid()


@pytest.mark.parametrize(
    ("members", "links"),
    [
        ([("../../evil", "x", 0o644)], ()),
        ([("bin/../../../evil", "x", 0o644)], ()),
        ([("out/evil", "x", 0o644)], (("out", "../../"),)),
    ],
    ids=["parent", "hidden parent", "link"],
)
def test_no_member_leaves_the_release(tmp_path, release, members, links):
    path = archive(tmp_path / "a.tar.gz", ("bin/llama-server", GOOD, 0o755), *members, links=links)
    run("release.sh", release, path, "cpu")
    assert not list(tmp_path.glob("evil")) + list(release.parent.glob("evil"))


@pytest.mark.parametrize("target", ["../../..", "/"])
def test_a_link_out_of_the_release_changes_nothing_outside(tmp_path, release, target):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    outside.chmod(0o600)
    link = f"{'../' * 2}outside" if target != "/" else str(outside)
    path = archive(tmp_path / "a.tar.gz", ("bin/llama-server", GOOD, 0o755), links=(("lib", link),))
    run("release.sh", release, path, "cpu")
    assert outside.stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("../../evil", "x", 0o644), ("bin/llama-server", GOOD, 0o755)], "not unpacked"),
        ([("README", "x", 0o644)], "no llama-server"),
        ([("bin/llama-server", "#!/bin/sh\necho cannot find libgomp >&2\nexit 127\n", 0o755)], "cannot find libgomp"),
        ([("bin/llama-server", GOOD, 0o644)], "does not run"),
    ],
)
def test_a_bad_archive_is_refused_with_the_reason_and_leaves_nothing(tmp_path, release, members, reason):
    done = run("release.sh", release, archive(tmp_path / "a.tar.gz", *members), "cpu")
    assert done.returncode == 1
    assert reason in done.stderr
    assert list(release.parent.iterdir()) == []


def test_what_is_no_archive_is_refused(tmp_path, release):
    (tmp_path / "a.tar.gz").write_text("<html>not found</html>")
    done = run("release.sh", release, tmp_path / "a.tar.gz", "cpu")
    assert done.returncode == 1
    assert "not unpacked" in done.stderr
    assert list(release.parent.iterdir()) == []


def test_a_bad_archive_leaves_what_was_there(tmp_path, release):
    (release / "bin").mkdir(parents=True)
    (release / "bin" / "libggml.so").touch()
    bad = archive(tmp_path / "b.tar.gz", ("llama-server", "#!/bin/sh\nexit 1\n", 0o755))
    assert run("release.sh", release, bad, "cpu").returncode == 1
    assert [entry.name for entry in (release / "bin").iterdir()] == ["libggml.so"]


def test_a_release_that_another_run_has_made_by_now_is_left_alone(tmp_path, release):
    good = archive(tmp_path / "a.tar.gz", ("llama-server", GOOD, 0o755))
    assert run("release.sh", release, good, "cpu").returncode == 0
    before = (release / "bin" / "llama-server").stat()
    assert run("release.sh", release, tmp_path / "gone.tar.gz", "cpu").returncode == 0
    assert (release / "bin" / "llama-server").stat() == before


def test_another_run_is_waited_for_and_that_is_said(tmp_path, release):
    good = archive(tmp_path / "a.tar.gz", ("llama-server", GOOD, 0o755))
    folder = os.open(release.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    process = start("release.sh", release, good, "cpu")
    assert process.stdout
    assert process.stdout.readline() == "another run is at it: waiting for it\n"
    assert not release.exists()
    fcntl.flock(folder, fcntl.LOCK_UN)
    os.close(folder)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err, release.exists()) == (0, "", True)


def test_what_a_killed_run_of_another_version_left_goes(tmp_path, release):
    (release.parent / ".staging-llama.cpp-old" / "bin").mkdir(parents=True)
    good = archive(tmp_path / "a.tar.gz", ("llama-server", GOOD, 0o755))
    assert run("release.sh", release, good, "cpu").returncode == 0
    assert [entry.name for entry in release.parent.iterdir()] == [release.name]


def test_what_a_killed_run_left_is_not_mixed_in(tmp_path, release):
    left = release.parent / f".staging-{release.name}"
    (left / "bin").mkdir(parents=True)
    (left / "bin" / "old").touch()
    assert (
        run("release.sh", release, archive(tmp_path / "a.tar.gz", ("bin/llama-server", GOOD, 0o755)), "cpu").returncode
        == 0
    )
    assert [entry.name for entry in (release / "bin").iterdir()] == ["llama-server"]


# activate


def make_releases(folder: Path, *names: str) -> list[Path]:
    made = []
    for age, name in enumerate(reversed(names)):
        path = folder / name
        (path / "bin").mkdir(parents=True)
        os.utime(path, (time.time() - 100 - age, time.time() - 100 - age))
        made.append(path)
    return list(reversed(made))


def test_the_link_points_to_the_release(tmp_path):
    (release,) = make_releases(tmp_path / "releases", "llama.cpp-1")
    link = tmp_path / "current" / "llama.cpp"
    for _ in range(2):
        assert run("activate.sh", release, link, 3, tmp_path / "cache").returncode == 0
        assert link.readlink() == release
    assert [entry.name for entry in link.parent.iterdir()] == ["llama.cpp"]


def test_the_newest_three_and_other_runtimes_stay(tmp_path):
    releases = make_releases(tmp_path / "releases", *(f"llama.cpp-{number}" for number in range(5)))
    make_releases(tmp_path / "releases", "vllm-1", "vllm-2", "vllm-3", "vllm-4")
    assert run("activate.sh", releases[-1], tmp_path / "current" / "llama.cpp", 3, tmp_path / "cache").returncode == 0
    left = {entry.name for entry in (tmp_path / "releases").glob("llama.cpp-*")}
    assert left == {"llama.cpp-2", "llama.cpp-3", "llama.cpp-4"}
    assert len(list((tmp_path / "releases").glob("vllm-*"))) == 4


def test_the_way_back_to_the_oldest_release_does_not_remove_it(tmp_path):
    releases = make_releases(tmp_path / "releases", *(f"llama.cpp-{number}" for number in range(5)))
    assert run("activate.sh", releases[0], tmp_path / "current" / "llama.cpp", 3, tmp_path / "cache").returncode == 0
    left = {entry.name for entry in (tmp_path / "releases").iterdir()}
    assert left == {"llama.cpp-0", "llama.cpp-3", "llama.cpp-4"}


def test_what_a_process_runs_from_stays(tmp_path):
    releases = make_releases(tmp_path / "releases", *(f"llama.cpp-{number}" for number in range(5)))
    program = releases[0] / "bin/server"
    shutil.copy("/bin/sleep", program)
    os.utime(releases[0], (0, 0))
    link = tmp_path / "current" / "llama.cpp"
    with subprocess.Popen([program, "60"]) as running:
        try:
            assert run("activate.sh", releases[-1], link, 3, tmp_path / "cache").returncode == 0
        finally:
            running.kill()
    left = {entry.name for entry in (tmp_path / "releases").iterdir()}
    assert left == {"llama.cpp-0", "llama.cpp-2", "llama.cpp-3", "llama.cpp-4"}
    assert run("activate.sh", releases[-1], link, 3, tmp_path / "cache").returncode == 0
    assert not releases[0].exists()


def test_releases_that_were_refused_do_not_push_out_the_one_that_was_in_use(tmp_path):
    releases = make_releases(tmp_path / "releases", *(f"vllm-{number}" for number in range(6)))
    link = tmp_path / "current" / "vllm"
    assert run("activate.sh", releases[0], link, 9, tmp_path / "cache").returncode == 0
    # All others are newer: they were made, asked and never switched to.
    os.utime(releases[0], (time.time() - 1000, time.time() - 1000))
    assert run("activate.sh", releases[-1], link, 3, tmp_path / "cache").returncode == 0
    left = {entry.name for entry in (tmp_path / "releases").iterdir()}
    assert left == {"vllm-0", "vllm-4", "vllm-5"}


def test_whoever_follows_the_link_meanwhile_always_finds_a_release(tmp_path):
    releases = make_releases(tmp_path / "releases", "llama.cpp-1", "llama.cpp-2")
    link = tmp_path / "current" / "llama.cpp"
    assert run("activate.sh", releases[0], link, 3, tmp_path / "cache").returncode == 0
    # A process of its own looks: pyinfra makes the threads of this one take turns.
    looking = 'while [ ! -e "$1/stop" ]; do [ -d "$1/current/llama.cpp/bin" ] || echo missing; done'
    watcher = subprocess.Popen(["sh", "-c", looking, "sh", str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        for turn in range(20):
            assert run("activate.sh", releases[turn % 2], link, 3, tmp_path / "cache").returncode == 0
    finally:
        (tmp_path / "stop").touch()
        said, _ = watcher.communicate(timeout=10)
    assert said == ""


def test_a_link_that_cannot_be_switched_is_no_success_and_costs_no_release(tmp_path):
    releases = make_releases(tmp_path / "releases", *(f"llama.cpp-{number}" for number in range(5)))
    link = tmp_path / "current" / "llama.cpp"
    link.mkdir(parents=True)
    assert run("activate.sh", releases[-1], link, 3, tmp_path / "cache").returncode != 0
    assert len(list((tmp_path / "releases").iterdir())) == 5


def test_a_release_that_is_not_there_is_not_switched_to(tmp_path):
    (release,) = make_releases(tmp_path / "releases", "llama.cpp-1")
    link = tmp_path / "current" / "llama.cpp"
    assert run("activate.sh", release, link, 3, tmp_path / "cache").returncode == 0
    assert run("activate.sh", tmp_path / "releases" / "llama.cpp-9", link, 3, tmp_path / "cache").returncode != 0
    assert link.readlink() == release


def test_the_caches_of_a_release_go_with_it_and_no_others(tmp_path):
    releases = make_releases(tmp_path / "releases", *(f"vllm-{number}" for number in range(5)))
    make_releases(tmp_path / "releases", "sglang-1")
    cache = tmp_path / "cache"
    kept = (
        "chat/releases/vllm-2",
        "chat/releases/vllm-4",
        "chat/releases/sglang-9",
        "build/vllm-0",
        "uv/wheels/vllm-0",
    )
    gone = ("chat/releases/vllm-0", "b/releases/vllm-1")
    for folder in (*kept, *gone):
        (cache / folder / "triton").mkdir(parents=True)
    # A service owns the folder above: where it leads elsewhere, nothing is removed there.
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "vllm-0").mkdir(parents=True)
    (cache / "evil").mkdir()
    (cache / "evil/releases").symlink_to(elsewhere)
    assert run("activate.sh", releases[-1], tmp_path / "current" / "vllm", 3, cache).returncode == 0
    left = {str(path.parent.relative_to(cache)) for path in cache.rglob("triton")}
    assert left == set(kept)
    assert (elsewhere / "vllm-0").is_dir()
