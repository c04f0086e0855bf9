"""llama-server from source on Debian 12, built once and shipped; then as a pinned archive and from a mirror."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.lab.conftest import LabFactory
from tests.lab.deploying import Run, Site, main_pid, serves
from tests.lab.talking import takes_all

pytestmark = [pytest.mark.lab, pytest.mark.build]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty cache on the operator's side, so that there really is something to build."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def built(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Site, Run]:
    lab = lab_factory("build")
    lab.up(2, "bookworm")
    site = Site(lab, tmp_path_factory.mktemp("build"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        for data in site.hosts.values():
            data["llamacpp_install"] = "build"
        # One host by root, the other by a user with sudo, as most fleets are: files arrive another way there.
        site.hosts["h2"]["ssh_user"] = "deploy"
        run = site.deploy()
    return site, run


@pytest.fixture(scope="module")
def archive(built: tuple[Site, Run], cache: Path) -> Path:
    assert built[1].code == 0, built[1].text
    return next((cache / "rackserve" / "builds").glob("*.tar.gz"))


def test_both_hosts_serve_what_one_of_them_built(built: tuple[Site, Run], archive: Path) -> None:
    site, _ = built
    assert archive.name == "llama.cpp-llama-cpp-python-0.3.36-bookworm-x86_64.tar.gz"
    for host in ("h1", "h2"):
        assert serves(site.lab, host)
    logs = [site.lab.ssh(host, "ls /var/cache/rackserve/build/*/build.log", check=False) for host in ("h1", "h2")]
    assert sorted(log.returncode for log in logs) == [0, 2]
    compilers = [site.lab.ssh(host, "command -v g++", check=False).returncode for host in ("h1", "h2")]
    assert compilers.count(0) == 1
    assert site.rackserve("verify", str(site.file)).returncode == 0


def test_the_built_server_takes_every_command_line_that_is_planned(built: tuple[Site, Run], archive: Path) -> None:
    assert archive.is_file()
    takes_all(built[0], "h1")


def test_second_run_builds_nothing_even_without_the_cache(built: tuple[Site, Run]) -> None:
    site, _ = built
    before = main_pid(site.lab, "h1")
    run = site.deploy()
    assert run.code == 0
    assert run.changed("h1") == run.changed("h2") == []
    assert main_pid(site.lab, "h1") == before


def test_pinned_archive_replaces_the_build_and_the_old_release_stays(built: tuple[Site, Run], archive: Path) -> None:
    site, _ = built
    offered = site.lab.depot_dir / "llama-server.tar.gz"
    shutil.copy(archive, offered)
    site.hosts["h1"] |= {
        "llamacpp_install": "archive",
        "llamacpp_archive_url": f"{site.lab.depot_url}/{offered.name}",
        "llamacpp_archive_sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }
    run = site.deploy()
    assert run.code == 0, run.text
    # The program's path changed with its release, so the service was restarted into it.
    assert [name.partition(" | ")[2].split()[0] for name in run.changed("h1")] == ["Release", "Service"]
    assert run.changed("h2") == []
    assert serves(site.lab, "h1")
    releases = site.lab.ssh(
        "h1", "ls /opt/rackserve/releases; readlink /opt/rackserve/current/llama.cpp"
    ).stdout.split()
    assert len(releases) == 3
    assert releases[-1].endswith(site.hosts["h1"]["llamacpp_archive_sha256"][:12])
    assert site.deploy().changed("h1") == []


def test_archive_with_another_checksum_is_not_used(built: tuple[Site, Run], archive: Path) -> None:
    site, _ = built
    assert archive.is_file()
    before = main_pid(site.lab, "h1")
    site.hosts["h1"]["llamacpp_archive_sha256"] = "e" * 64
    run = site.deploy()
    assert run.code == 1
    assert f"expected {'e' * 64}" in run.said_of("h1")
    assert run.failed("h2") == []
    assert main_pid(site.lab, "h1") == before
    assert serves(site.lab, "h1")


def test_mirror_stands_in_for_an_unreachable_release_host(built: tuple[Site, Run], archive: Path) -> None:
    site, _ = built
    site.hosts["h2"] |= {
        "llamacpp_install": "mirror",
        "llamacpp_mirror": site.lab.depot_url,
        "llamacpp_archive_url": "https://releases.invalid/v1/llama-server.tar.gz",
        "llamacpp_archive_sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }
    site.hosts.pop("h1")
    run = site.deploy()
    assert run.code == 0, run.text
    assert serves(site.lab, "h2")
