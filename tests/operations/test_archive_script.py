"""archive.sh on real archives: a release is complete and of the planned version, or not there."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from rackserve.lab.runtime_archives import llmster_archive, ollama_archive
from tests.operations.scripting import FileServer, run, serving
from tests.operations.test_release_scripts import archive

SAYS = (
    "#!/bin/sh\necho 'Warning: could not connect to a running Ollama instance'\necho 'Warning: client version is {}'\n"
)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "releases"
    folder.mkdir()
    return folder / "ollama-1-new"


def refused(release: Path, reason: str, *arguments: object) -> None:
    done = run("archive.sh", release, *arguments)
    assert done.returncode == 1
    assert reason in done.stderr
    assert list(release.parent.iterdir()) == []


def test_an_archive_laid_out_like_ollamas_becomes_a_release(tmp_path, release):
    ollama_archive(tmp_path / "o.tar", "0.32.15")
    done = run("archive.sh", release, tmp_path / "o.tar", "bin/ollama", "0.32.15")
    assert (done.returncode, done.stderr) == (0, "")
    said = subprocess.run([release / "bin/ollama", "--version"], capture_output=True, text=True, check=True).stdout
    assert "0.32.15" in said
    assert [entry.name for entry in release.parent.iterdir()] == [release.name]


def test_an_archive_laid_out_like_llmsters_becomes_a_release_unasked(tmp_path, release):
    llmster_archive(tmp_path / "l.tar", "0.0.25-1")
    done = run("archive.sh", release, tmp_path / "l.tar", "llmster", "")
    assert (done.returncode, done.stderr) == (0, "")
    assert (release / ".bundle" / "lms").exists()


@pytest.mark.parametrize("said", ["0.32.1", "0.32.150", "0.32.15-rc1", "0.33.0"])
def test_a_program_of_another_version_is_refused_with_what_it_says(tmp_path, release, said):
    path = archive(tmp_path / "a.tar", ("bin/ollama", SAYS.format(said), 0o755))
    refused(release, f"client version is {said}", path, "bin/ollama", "0.32.15")


def test_the_version_of_a_server_that_runs_already_is_not_taken_for_the_programs(tmp_path, release):
    script = "#!/bin/sh\n[ $OLLAMA_HOST = 127.0.0.1:9 ] || exit 1\n" + SAYS.format("0.32.15").partition("\n")[2]
    path = archive(tmp_path / "a.tar", ("bin/ollama", script, 0o755))
    assert run("archive.sh", release, path, "bin/ollama", "0.32.15").returncode == 0


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (("ollama", SAYS.format("1"), 0o755), "no program bin/ollama"),
        (("bin/ollama", SAYS.format("1"), 0o644), "no program bin/ollama"),
        (("bin/ollama/x", SAYS.format("1"), 0o755), "no program bin/ollama"),
        (("bin/ollama", "#!/bin/sh\necho no libm >&2\nexit 127\n", 0o755), "does not run on this host: no libm"),
        (("../../evil", "x", 0o644), "not unpacked"),
    ],
)
def test_a_bad_archive_is_refused_with_the_reason_and_leaves_nothing(tmp_path, release, member, reason):
    refused(release, reason, archive(tmp_path / "a.tar", member), "bin/ollama", "1")
    assert not list(tmp_path.glob("evil"))


def test_owner_and_special_bits_of_an_archive_are_not_taken_over(tmp_path, release):
    path = archive(tmp_path / "a.tar", ("bin/ollama", SAYS.format("1"), 0o6777), ("lib/ollama/x.so", "x", 0o666))
    assert run("archive.sh", release, path, "bin/ollama", "1").returncode == 0
    assert (release / "bin/ollama").stat().st_mode & 0o7777 == 0o755
    assert (release / "lib/ollama/x.so").stat().st_mode & 0o7777 == 0o644


# fetch.sh with either kind of checksum


@pytest.mark.parametrize("kind", ["sha256", "sha512"])
def test_a_file_is_checked_by_the_kind_of_checksum_that_is_named(tmp_path, kind):
    content = b"an archive" * 1000
    checksum = hashlib.new(kind, content).hexdigest()
    destination = tmp_path / "archives" / "a.tar"
    with serving(FileServer(content)) as server:
        assert run("fetch.sh", server.url, checksum, len(content), destination).returncode == 0
        assert destination.read_bytes() == content
        wrong = "0" * len(checksum)
        done = run("fetch.sh", server.url, wrong, len(content), tmp_path / "other" / "b.tar")
    assert done.returncode == 1
    assert f"SHA-{kind.removeprefix('sha')} is {checksum}, expected {wrong}" in done.stderr
