"""uv.sh installs uv itself from the machine's own package index; uv-cache.sh keeps what releases have."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rackserve.catalog.loader import load_catalog
from tests.operations.environment_bench import EnvironmentHost, Index, engine, indexing, install_uv, pinned, torch

UV = load_catalog().uv
TORCH = torch(cuda="13.0")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("uv")
    done = install_uv(folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.fixture
def folder(installed, tmp_path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(installed, tmp_path / "host", symlinks=True)
    return tmp_path / "host"


def version(folder: Path) -> str:
    program = folder / "releases" / f"uv-{UV.version}" / "bin" / "uv"
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]


def test_uv_is_of_the_pinned_version_and_nothing_else_is_left(installed):
    assert version(installed) == UV.version
    assert [path.name for path in (installed / "releases").iterdir()] == [f"uv-{UV.version}"]


def test_uv_that_works_is_left_alone(folder):
    mark = folder / "releases" / f"uv-{UV.version}" / "mark"
    mark.touch()
    done = install_uv(folder, "no requirements file at all")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert mark.exists()


def test_uv_whose_python_was_upgraded_away_is_installed_anew(folder):
    # What an upgrade of the system leaves: the interpreter of another version, for which there is no pip in here.
    (libraries,) = (folder / "releases" / f"uv-{UV.version}" / "lib").iterdir()
    libraries.rename(libraries.with_name("python3.2"))
    done = install_uv(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert version(folder) == UV.version
    assert not libraries.with_name("python3.2").exists()


def test_uv_with_other_bytes_is_refused_and_leaves_nothing(tmp_path):
    done = install_uv(tmp_path, f"uv=={UV.version} --hash=sha256:{'0' * 64}\n")
    assert done.returncode == 1
    assert f"not installed: uv-{UV.version}" in done.stderr
    assert "hash" in done.stderr.lower()
    assert list((tmp_path / "releases").iterdir()) == []


# the cache


@pytest.fixture
def index() -> Iterator[Index]:
    with indexing(Index().add(TORCH, engine("1.0"), engine("2.0"))) as made:
        yield made


@pytest.fixture
def host(folder, index) -> EnvironmentHost:
    made = EnvironmentHost(folder, folder / "releases" / f"uv-{UV.version}")
    made.pip["index-url"] = f"{index.url}/simple"
    for number in (1, 2):
        wheels = pinned(TORCH, engine(f"{number}.0"))
        assert made.install(wheels, f"engine-{number}", version=f"{number}.0").returncode == 0
    return made


def cached(host: EnvironmentHost) -> set[str]:
    return {path.name for path in (host.work / "uv").glob("archive-v*/*/*.dist-info")}


def prune(host: EnvironmentHost) -> None:
    done = host.run("uv-cache.sh", host.uv, host.work)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_releases_have_stays(host):
    prune(host)
    assert cached(host) == {"torch-9.9.dist-info", "engine-1.0.dist-info", "engine-2.0.dist-info"}


def test_what_no_release_has_any_more_goes(host):
    shutil.rmtree(host.release("engine-1"))
    prune(host)
    assert cached(host) == {"torch-9.9.dist-info", "engine-2.0.dist-info"}


def test_a_host_without_this_uv_is_cleaned_as_well(host):
    # Its releases were all made before this uv was pinned.
    shutil.rmtree(host.release("engine-1"))
    done = host.run("uv-cache.sh", f"{host.uv}-newer", host.work)
    assert (done.returncode, done.stderr) == (0, "")
    assert cached(host) == {"torch-9.9.dist-info", "engine-2.0.dist-info"}


def test_what_went_is_fetched_again_when_it_is_wanted(host):
    shutil.rmtree(host.release("engine-1"))
    prune(host)
    assert host.install(pinned(TORCH, engine("1.0")), "engine-1").returncode == 0


def test_a_release_needs_no_cache(host):
    shutil.rmtree(host.work)
    program = host.release("engine-2") / "bin" / "engine"
    assert subprocess.run([program], capture_output=True, text=True, check=True).stdout == "serving with 13.0\n"
