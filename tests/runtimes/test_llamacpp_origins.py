"""Where llama-server comes from on which host, for the CPU."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.domain.host import LlamaCppSettings
from rackserve.domain.node import Node
from rackserve.runtimes.llamacpp_origins import FromArchive, FromPackage, FromSource, Origin, origin

SHA256 = "1" * 64
OWN = {"archive_url": "https://example.org/mine.tar.gz", "archive_sha256": SHA256}
FORKY = ("debian", "forky", "x86_64", "2.43")
BOOKWORM = ("debian", "bookworm", "x86_64", "2.36")
ARM_BOOKWORM = ("debian", "bookworm", "aarch64", "2.36")
ARM_TRIXIE = ("debian", "trixie", "aarch64", "2.41")
NOBLE = ("ubuntu", "noble", "x86_64", "2.39")
UBUNTU_FORKY = ("ubuntu", "forky", "x86_64", "2.43")
BULLSEYE = ("debian", "bullseye", "x86_64", "2.31")
ALPINE = ("alpine", "", "x86_64", "0")
RISCV = ("debian", "trixie", "riscv64", "2.41")
Where = tuple[str, str, str, str]


def origin_on(where: Where, **settings: Any) -> Origin | str:
    distribution, codename, architecture, glibc = where
    node = Node(
        distribution=distribution,
        codename=codename,
        architecture=architecture,
        glibc=glibc,
        memory_mib=4096,
        systemd=True,
        cpu_flags=frozenset(),
        pci_gpus=(),
    )
    return origin(LlamaCppSettings.model_validate(settings), load_catalog(), node)


@pytest.mark.parametrize(
    ("install", "where", "expected"),
    [
        ("auto", FORKY, FromPackage),
        ("auto", BOOKWORM, FromArchive),
        ("auto", NOBLE, FromArchive),
        ("auto", UBUNTU_FORKY, FromArchive),
        ("auto", ARM_TRIXIE, FromArchive),
        ("auto", ARM_BOOKWORM, "glibc 2.38"),
        ("auto", BULLSEYE, "glibc 2.34"),
        ("auto", ALPINE, "glibc 2.34"),
        ("auto", RISCV, "riscv64"),
        ("package", FORKY, FromPackage),
        ("package", BOOKWORM, "'package'"),
        ("package", ALPINE, "'package'"),
        ("archive", FORKY, FromArchive),
        ("archive", BOOKWORM, FromArchive),
        ("archive", BULLSEYE, "'build'"),
        ("archive", RISCV, "llamacpp_archive_url"),
        ("build", FORKY, FromSource),
        ("build", BULLSEYE, FromSource),
        ("build", RISCV, FromSource),
    ],
)
def test_where_llama_server_comes_from(install, where, expected):
    found = origin_on(where, install=install)
    if isinstance(expected, str):
        assert isinstance(found, str)
        assert expected in found
    else:
        assert isinstance(found, expected)


@pytest.mark.parametrize("where", [ARM_BOOKWORM, BULLSEYE, RISCV])
def test_a_sentence_names_the_distribution_and_what_would_work(where):
    found = origin_on(where)
    assert isinstance(found, str)
    assert f"{where[0]} {where[1]} on {where[2]}" in found
    assert "llamacpp_install = 'build'" in found


def test_each_architecture_gets_its_own_archive():
    x86, arm = origin_on(NOBLE), origin_on(ARM_TRIXIE)
    assert isinstance(x86, FromArchive)
    assert isinstance(arm, FromArchive)
    assert ("x64" in x86.url, "arm64" in arm.url, x86.sha256 != arm.sha256) == (True, True, True)


@pytest.mark.parametrize("base", ["http://mirror.example/llama", "http://mirror.example/llama/"])
def test_a_mirror_has_the_same_file_under_the_same_checksum(base):
    pinned = origin_on(BOOKWORM)
    found = origin_on(BOOKWORM, install="mirror", mirror=base)
    assert isinstance(pinned, FromArchive)
    assert isinstance(found, FromArchive)
    assert found.url == "http://mirror.example/llama/llama-b11429-bin-ubuntu-x64.tar.gz"
    assert (found.sha256, found.release) == (pinned.sha256, pinned.release)


@pytest.mark.parametrize("where", [BOOKWORM, BULLSEYE, RISCV])
def test_an_archive_of_the_operators_own_is_taken_anywhere(where):
    found = origin_on(where, **OWN)
    assert isinstance(found, FromArchive)
    assert (found.url, found.sha256) == (OWN["archive_url"], SHA256)


def test_different_archives_are_different_releases():
    releases = {
        getattr(origin_on(where, **settings), "release", None)
        for where, settings in [
            (FORKY, {}),
            (BOOKWORM, {}),
            (BOOKWORM, OWN),
            (BOOKWORM, {"install": "build"}),
            (FORKY, {"install": "build"}),
            (ARM_TRIXIE, {"install": "build"}),
        ]
    }
    assert len(releases) == 6
    assert None not in releases


def test_a_built_program_needs_no_compiler_where_it_runs():
    found = origin_on(BOOKWORM, install="build", build_jobs=3)
    assert isinstance(found, FromSource)
    assert found.jobs == 3
    assert not {"g++", "cmake"} & set(found.packages)
    assert {"g++", "cmake"} <= set(found.build_packages)


def test_a_fetched_program_needs_what_fetches_and_links_it():
    found = origin_on(BOOKWORM)
    assert isinstance(found, FromArchive)
    assert {"curl", "ca-certificates", "libgomp1"} <= set(found.packages)
