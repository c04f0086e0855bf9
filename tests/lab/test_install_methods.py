"""llama-server from source on Debian 12, built once and shipped; then as a pinned archive and from a mirror.

From llama.cpp's own source in `make test-all`, else from a stand-in of one file.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from rackserve.catalog.loader import load_catalog
from tests.lab.conftest import LabFactory
from tests.lab.deploying import Run, Site, main_pid, serves
from tests.lab.llama_source import offer
from tests.lab.talking import takes_all

pytestmark = pytest.mark.lab


@dataclass(frozen=True)
class Built:
    """What a first run made, from an empty cache on the operator's side. version: of the source."""

    site: Site
    run: Run
    cache: Path
    version: str

    @property
    def archive(self) -> Path:
        """What was built, as the operator's machine keeps it."""
        assert self.run.code == 0, self.run.text
        return next((self.cache / "rackserve" / "builds").glob("*.tar.gz"))


@pytest.fixture(scope="module", params=["standin", pytest.param("real", marks=[pytest.mark.full, pytest.mark.build])])
def built(request: pytest.FixtureRequest, lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Of llama.cpp's own source, which takes minutes, or of a stand-in for it that goes the same way in seconds."""
    lab, folder = lab_factory(f"build-{request.param}"), tmp_path_factory.mktemp("build")
    lab.up(2, "bookworm")
    site, catalogues = Site(lab, folder), [offer(lab, folder)] if request.param == "standin" else []
    for data in site.hosts.values():
        data["llamacpp_install"] = "build"
        data["catalog"] = [*data["catalog"], *catalogues]
    # One host by root, the other by a user with sudo, as most fleets are: files arrive another way there.
    site.hosts["h2"]["ssh_user"] = "deploy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        run = site.deploy()
    return Built(site, run, folder / "cache", load_catalog(catalogues).llamacpp.build.version)


def test_both_hosts_serve_what_one_of_them_built(built: Built) -> None:
    site = built.site
    assert built.archive.name == f"llama.cpp-llama-cpp-python-{built.version}-bookworm-x86_64.tar.gz"
    for host in ("h1", "h2"):
        assert serves(site.lab, host)
    logs = [site.lab.ssh(host, "ls /var/cache/rackserve/build/*/build.log", check=False) for host in ("h1", "h2")]
    assert sorted(log.returncode for log in logs) == [0, 2]
    compilers = [site.lab.ssh(host, "command -v g++", check=False).returncode for host in ("h1", "h2")]
    assert compilers.count(0) == 1
    assert site.rackserve("verify", str(site.file)).returncode == 0


@pytest.mark.full
@pytest.mark.parametrize("built", ["real"], indirect=True)
def test_the_built_server_takes_every_command_line_that_is_planned(built: Built) -> None:
    assert built.archive.is_file()
    takes_all(built.site, "h1")


def test_second_run_builds_nothing_even_without_the_cache(built: Built) -> None:
    site = built.site
    before = main_pid(site.lab, "h1")
    run = site.deploy()
    assert run.code == 0
    assert run.changed("h1") == run.changed("h2") == []
    assert main_pid(site.lab, "h1") == before


def test_pinned_archive_replaces_the_build_and_the_old_release_stays(built: Built) -> None:
    site, archive = built.site, built.archive
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


def test_archive_with_another_checksum_is_not_used(built: Built) -> None:
    site = built.site
    before = main_pid(site.lab, "h1")
    site.hosts["h1"]["llamacpp_archive_sha256"] = "e" * 64
    run = site.deploy()
    assert run.code == 1
    assert f"expected {'e' * 64}" in run.said_of("h1")
    assert run.failed("h2") == []
    assert main_pid(site.lab, "h1") == before
    assert serves(site.lab, "h1")


def test_mirror_stands_in_for_an_unreachable_release_host(built: Built) -> None:
    site, archive = built.site, built.archive
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
