"""Where llama-server comes from for each backend, and what it is built with."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.domain.host import LlamaCppSettings
from rackserve.domain.node import Node
from rackserve.runtimes.llamacpp_origins import Compute, FromArchive, FromPackage, FromSource, Origin, origin

SHA256 = "1" * 64
OWN = {"archive_url": "https://example.org/mine.tar.gz", "archive_sha256": SHA256}
GLIBC = {"ubuntu-22.04": "2.35", "ubuntu-24.04": "2.39", "ubuntu-26.04": "2.43", "debian-12": "2.36"}
GLIBC |= {"debian-13": "2.41", "rocky-9": "2.34", "rocky-10": "2.39", "macos-26": "0"}
CODENAMES = {"ubuntu-22.04": "jammy", "ubuntu-24.04": "noble", "ubuntu-26.04": "resolute"}
CODENAMES |= {"debian-12": "bookworm", "debian-13": "trixie"}
CUDA = Compute("cuda", "13.0", ("8.6",))
PASCAL = Compute("cuda", "12.9", ("6.1",))
ROCM = Compute("rocm", "10.0", ("gfx1100",))
VULKAN, SYCL, METAL = Compute("vulkan"), Compute("sycl"), Compute("metal")


def node(system: str, architecture: str = "x86_64") -> Node:
    distribution, _, version = system.partition("-")
    return Node(
        distribution=distribution,
        codename=CODENAMES.get(system, ""),
        version=version,
        architecture=architecture,
        glibc=GLIBC[system],
        memory_mib=4096,
        systemd=True,
        cpu_flags=frozenset(),
        pci_gpus=(),
    )


def found(compute: Compute, system: str, architecture: str = "x86_64", **settings: Any) -> Origin | str:
    return origin(LlamaCppSettings.model_validate(settings), load_catalog(), node(system, architecture), compute)


def built(compute: Compute, system: str, architecture: str = "x86_64") -> FromSource:
    made = found(compute, system, architecture, install="build")
    assert isinstance(made, FromSource), made
    return made


@pytest.mark.parametrize(
    ("compute", "system", "architecture", "kind"),
    [
        (CUDA, "ubuntu-24.04", "x86_64", FromSource),
        (CUDA, "ubuntu-24.04", "aarch64", FromSource),
        (CUDA, "debian-13", "x86_64", FromSource),
        (CUDA, "rocky-9", "x86_64", FromSource),
        (PASCAL, "debian-12", "x86_64", FromSource),
        (ROCM, "ubuntu-24.04", "x86_64", FromSource),
        (ROCM, "rocky-10", "x86_64", FromSource),
        (SYCL, "ubuntu-24.04", "x86_64", FromSource),
        (VULKAN, "ubuntu-24.04", "x86_64", FromArchive),
        (VULKAN, "ubuntu-24.04", "aarch64", FromArchive),
        (VULKAN, "rocky-9", "x86_64", FromArchive),
        (METAL, "macos-26", "arm64", FromArchive),
    ],
)
def test_each_backend_has_its_way(compute, system, architecture, kind):
    made = found(compute, system, architecture)
    assert isinstance(made, kind), made
    assert made.backend == compute.backend


@pytest.mark.parametrize(
    ("compute", "system", "architecture", "settings", "told"),
    [
        # NVIDIA has no packages of CUDA 12 for it, which would not compile there either.
        (PASCAL, "debian-13", "x86_64", {}, ("cuda 12.9", "debian trixie", "debian-12", "llamacpp_archive_url")),
        # NVIDIA's repository for Debian has no packages for ARM.
        (CUDA, "debian-12", "aarch64", {}, ("cuda 13.0", "nvidia-cuda", "aarch64")),
        (ROCM, "debian-12", "x86_64", {}, ("rocm 10.0", "debian bookworm", "ubuntu-24.04", "llamacpp_archive_url")),
        (SYCL, "rocky-9", "x86_64", {}, ("sycl", "rocky 9", "ubuntu-24.04")),
        # Its headers are too old.
        (VULKAN, "debian-12", "x86_64", {"install": "build"}, ("vulkan", "ubuntu-24.04", "llamacpp_archive_url")),
        (VULKAN, "debian-12", "aarch64", {}, ("glibc 2.38", "llamacpp_install = 'build'")),
        (METAL, "macos-26", "arm64", {"install": "build"}, ("metal", "no build packages", "llamacpp_archive_url")),
        (CUDA, "debian-12", "x86_64", {"install": "archive"}, ("no llama.cpp cuda release archive", "'build'")),
        (CUDA, "debian-12", "x86_64", {"install": "package"}, ("for the CPU", "cuda 13.0", "'auto'")),
        (Compute("cuda", "13.0"), "debian-12", "x86_64", {}, ("one kind of GPU", "target")),
    ],
)
def test_where_there_is_none_a_sentence_says_why_and_what_would_work(compute, system, architecture, settings, told):
    said = found(compute, system, architecture, **settings)
    assert isinstance(said, str)
    assert [word for word in told if word not in said] == []


def test_the_package_of_a_distribution_is_not_taken_for_a_gpu():
    forky = node("debian-13").model_copy(update={"codename": "forky", "version": "", "glibc": "2.43"})
    settings = LlamaCppSettings()
    assert isinstance(origin(settings, load_catalog(), forky), FromPackage)
    assert isinstance(origin(settings, load_catalog(), forky, VULKAN), FromArchive)


@pytest.mark.parametrize("system", ["ubuntu-22.04", "ubuntu-24.04", "debian-12", "rocky-9", "rocky-10"])
def test_cuda_is_built_with_the_toolkit_that_is_planned(system):
    made = built(CUDA, system)
    assert made.repositories == ("nvidia-cuda",)
    assert {"cuda-nvcc-13-0"} <= set(made.build_packages)
    assert {"libcublas-13-0", "cuda-cudart-13-0"} <= set(made.packages)
    assert not {name for name in made.packages if "dev" in name or "nvcc" in name}
    assert "-DCMAKE_CUDA_COMPILER=/usr/local/cuda-13.0/bin/nvcc" in made.recipe.options
    assert "-DCMAKE_INSTALL_RPATH=/usr/local/cuda-13.0/lib64" in made.recipe.options


@pytest.mark.parametrize("system", ["debian-13", "ubuntu-26.04"])
def test_a_newer_c_library_gets_a_newer_toolkit_of_the_same_major_version(system):
    made = built(CUDA, system)
    assert "cuda-nvcc-13-3" in made.build_packages
    assert "libcublas-13-3" in made.packages
    assert "cuda13.3" in made.release


def test_packages_are_called_what_the_system_calls_them():
    deb, rpm = built(CUDA, "ubuntu-24.04"), built(CUDA, "rocky-9")
    assert {"g++", "libcublas-dev-13-0"} <= set(deb.build_packages)
    assert {"gcc-c++", "libcublas-devel-13-0"} <= set(rpm.build_packages)
    assert ("libgomp1" in deb.packages, "libgomp" in rpm.packages) == (True, True)


@pytest.mark.parametrize(
    ("targets", "architectures"),
    [(("8.6",), "86-real"), (("12.0", "8.9"), "120-real;89-real"), (("8.6", "8.6"), "86-real")],
)
def test_code_is_made_for_the_cards_of_the_host_and_no_other(targets, architectures):
    made = built(Compute("cuda", "13.0", targets), "ubuntu-24.04")
    assert f"-DCMAKE_CUDA_ARCHITECTURES={architectures}" in made.recipe.options


def test_rocm_is_built_for_its_targets_with_their_packages():
    made = built(Compute("rocm", "10.0", ("gfx1201", "gfx1100")), "ubuntu-24.04")
    assert "-DGPU_TARGETS=gfx1100;gfx1201" in made.recipe.options
    assert {"amdrocm-core-dev10.0-gfx1100", "amdrocm-core-dev10.0-gfx1201"} <= set(made.build_packages)
    assert {"amdrocm-blas10.0-gfx1100", "amdrocm-blas10.0-gfx1201"} <= set(made.packages)
    assert "amdrocm-core-devel10.0-gfx1100" in built(ROCM, "rocky-10").build_packages
    assert "ROCM_PATH=/opt/rocm/core-10.0" in made.recipe.environment


def test_intels_compiler_is_set_up_first():
    made = built(SYCL, "ubuntu-24.04")
    assert made.recipe.setup == "/opt/intel/oneapi/setvars.sh"
    assert {"-DGGML_SYCL=ON", "-DCMAKE_CXX_COMPILER=icpx"} <= set(made.recipe.options)
    assert made.repositories == ("intel-oneapi",)


def test_vulkan_is_built_with_packages_of_the_system_alone():
    made = built(VULKAN, "debian-13")
    assert made.recipe.options == ("-DGGML_VULKAN=ON",)
    assert {"glslc", "libvulkan-dev", "spirv-headers"} <= set(made.build_packages)
    assert {"libvulkan1", "mesa-vulkan-drivers"} <= set(made.packages)
    assert made.repositories == ()


@pytest.mark.parametrize("compute", [CUDA, PASCAL, ROCM, SYCL, VULKAN])
@pytest.mark.parametrize("system", ["ubuntu-24.04", "debian-12"])
def test_no_build_is_for_the_cpu_that_made_it(compute, system):
    made = found(compute, system, install="build")
    if isinstance(made, FromSource):
        assert not [option for option in made.recipe.options if "NATIVE=ON" in option or "march" in option]


def test_a_fetched_vulkan_program_gets_the_loader_and_the_drivers():
    deb, rpm = found(VULKAN, "ubuntu-24.04"), found(VULKAN, "rocky-9")
    assert isinstance(deb, FromArchive)
    assert isinstance(rpm, FromArchive)
    assert {"libvulkan1", "mesa-vulkan-drivers", "libgomp1"} <= set(deb.packages)
    assert {"vulkan-loader", "mesa-vulkan-drivers", "libgomp"} <= set(rpm.packages)


def test_an_archive_of_the_operators_own_gets_what_its_backend_links():
    made = found(CUDA, "ubuntu-24.04", **OWN)
    assert isinstance(made, FromArchive)
    assert (made.url, made.backend) == (OWN["archive_url"], "cuda")
    assert {"libcublas-13-0", "cuda-cudart-13-0"} <= set(made.packages)
    assert made.repositories == ("nvidia-cuda",)


def test_an_archive_of_the_operators_own_is_taken_where_no_packages_could_complete_it():
    made = found(CUDA, "debian-12", "aarch64", **OWN)
    assert isinstance(made, FromArchive)
    assert (made.libraries, made.repositories) == (("libgomp1",), ())


def test_what_must_not_take_anothers_place_is_called_otherwise():
    made = [
        built(Compute(), "ubuntu-24.04"),
        built(CUDA, "ubuntu-24.04"),
        built(CUDA, "ubuntu-24.04", "aarch64"),
        built(CUDA, "debian-12"),
        built(CUDA, "rocky-9"),
        built(CUDA, "rocky-10"),
        built(Compute("cuda", "13.0", ("8.9",)), "ubuntu-24.04"),
        built(Compute("cuda", "13.0", ("8.6", "8.9")), "ubuntu-24.04"),
        built(Compute("cuda", "12.9", ("8.6",)), "ubuntu-24.04"),
        built(ROCM, "ubuntu-24.04"),
        built(VULKAN, "ubuntu-24.04"),
        built(SYCL, "ubuntu-24.04"),
        found(VULKAN, "ubuntu-24.04"),
        *(found(compute, "ubuntu-24.04", **OWN) for compute in (Compute(), CUDA, VULKAN)),
    ]
    releases = [entry.release for entry in made if not isinstance(entry, str)]
    assert len(set(releases)) == len(made)
    # A release is found again, and removed, by this beginning.
    assert all(name.startswith("llama.cpp-") for name in releases)


def test_the_order_of_a_hosts_cards_makes_no_other_build():
    one, other = (Compute("rocm", "10.0", targets) for targets in (("gfx1100", "gfx942"), ("gfx942", "gfx1100")))
    assert built(one, "ubuntu-24.04") == built(other, "ubuntu-24.04")


# the catalogue


def test_all_archives_are_of_one_release_and_there_once():
    archives = load_catalog().llamacpp.archives
    assert len({(entry.architecture, entry.backend) for entry in archives}) == len(archives)
    assert len({entry.sha256 for entry in archives}) == len(archives)
    assert {entry.url.split("/")[-2] for entry in archives} == {"b11429"}


def test_all_repositories_of_backends_are_known():
    catalog = load_catalog()
    known = {(entry.name, system) for entry in catalog.drivers.repositories.values() for system in entry.systems}
    for entry in catalog.llamacpp.backends:
        assert {(name, system) for name in entry.repositories for system in entry.systems} <= known


def test_every_build_of_a_stack_can_be_made_somewhere():
    facts = load_catalog()
    builds = facts.stacks.runtimes["llama.cpp"].builds
    for build in [build for build in builds if build.install == "build" and build.backend != "cpu"]:
        compute = Compute(build.backend, build.cuda or build.rocm, ("8.6",) if build.cuda else ("gfx1100",))
        assert isinstance(found(compute, "ubuntu-24.04"), FromSource), build
