"""toolkit.sh, as environment.sh uses it for real: the CUDA toolkit of links that a release with nvcc gets."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.operations.environment_bench import EnvironmentHost, Index, engine, indexing, install_uv, nvcc, pinned, torch

WHEELS = (torch(cuda="13.0"), engine(), nvcc())
LINKS_WITH = "int cuInit(unsigned); int started(void) { return cuInit(0); }\n"
# A gcc of this machine by its release.
GCC = next((path.name.partition("-")[2] for path in sorted(Path("/usr/bin").glob("gcc-[0-9]*"))), "")


@pytest.fixture(scope="module")
def uv(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("uv")
    assert install_uv(folder).returncode == 0
    return next((folder / "releases").iterdir())


@pytest.fixture
def index() -> Iterator[Index]:
    with indexing(Index().add(*WHEELS)) as made:
        yield made


@pytest.fixture
def host(tmp_path, uv, index) -> EnvironmentHost:
    made = EnvironmentHost(tmp_path, uv)
    made.pip["index-url"] = f"{index.url}/simple"
    return made


@pytest.fixture
def cuda(host) -> Path:
    """The toolkit of an installed release."""
    done = host.install(pinned(*WHEELS))
    assert (done.returncode, done.stderr) == (0, "")
    return host.release() / "cuda"


def links(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_symlink()]


def linked(cuda: Path, *options: str) -> Path:
    """A library that uses the driver, linked as FlashInfer does it."""
    made = cuda.parent.parent / "module.so"
    command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", made, *options, "-L", cuda / "lib64/stubs", "-lcuda"]
    subprocess.run(command, input=LINKS_WITH, text=True, check=True)
    return made


def needed(library: Path) -> list[str]:
    shown = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    return re.findall(r"NEEDED.*\\[(.*)\\]", shown)


def test_a_release_with_nvcc_has_a_toolkit_where_its_programs_look_for_one(cuda):
    said = subprocess.run([cuda / "bin" / "nvcc"], capture_output=True, text=True, check=True).stdout
    # It was called by its name in here, and looks for the rest beside that.
    assert said == "nvcc of cuda\n"
    for path in (
        "bin/crt/link.stub",
        "include/cuda.h",
        "include/crt/host_config.h",
        "nvvm/bin/cicc",
        "lib/libcudart.so",
    ):
        assert (cuda / path).exists(), path
    for path in ("lib64/libcudart.so", "lib64/libcudart.so.13", "lib64/libcudadevrt.a", "lib64/stubs/libcuda.so"):
        assert (cuda / path).is_file(), path


def test_its_links_lead_into_the_release_wherever_that_is(cuda, tmp_path):
    moved = tmp_path / "elsewhere"
    cuda.parent.rename(moved)
    found = links(moved / "cuda")
    assert len(found) > 8
    assert [path for path in found if not path.resolve(strict=True).is_relative_to(moved)] == []


def test_what_is_linked_with_it_asks_for_the_drivers_library_whatever_the_linker_is_told(cuda):
    for options in ((), ("-Wl,--as-needed",), ("-Wl,--no-undefined",)):
        assert "libcuda.so.1" in needed(linked(cuda, *options))


def test_the_stub_has_the_drivers_functions_and_says_what_it_is(cuda):
    stub = ctypes.CDLL(str(cuda / "lib64/stubs/libcuda.so"))
    for name in ("cuInit", "cuMemAlloc_v2", "cuLaunchKernel", "cuLaunchKernel_ptsz"):
        assert getattr(stub, name)() == 34
    assert not hasattr(stub, "cuMemAlloc")


def test_a_release_without_nvcc_has_no_toolkit_and_needs_no_compiler(host):
    assert host.install(pinned(*WHEELS[:2]), gcc="99").returncode == 0
    assert not (host.release() / "cuda").exists()


# releases that an earlier version of rackserve made


@pytest.fixture
def older(host, cuda) -> Path:
    shutil.rmtree(cuda)
    return host.release()


def test_an_older_release_gets_its_toolkit_and_nothing_else_of_it_is_touched(host, index, older):
    before = {path: path.lstat().st_mtime_ns for path in older.rglob("*")}
    index.asked.clear()
    done = host.install(pinned(*WHEELS))
    assert (done.returncode, done.stderr, index.asked) == (0, "", [])
    assert (older / "cuda/bin/nvcc").is_file()
    assert {path: path.lstat().st_mtime_ns for path in before} == before
    assert host.left() == {"engine-1"}


def test_half_a_toolkit_is_made_anew(host, older):
    (older / "cuda/bin").mkdir(parents=True)
    (older / "cuda/half").touch()
    assert host.install(pinned(*WHEELS)).returncode == 0
    assert (older / "cuda/bin/nvcc").is_file()
    assert not (older / "cuda/half").exists()


def test_where_it_cannot_have_one_an_older_release_stays_as_it_is(host, older):
    done = host.install(pinned(*WHEELS), gcc="99")
    assert done.returncode == 1
    assert "no CUDA toolkit for engine-1: /usr/bin/gcc-99 is not there" in done.stderr
    assert host.left() == {"engine-1"}
    assert (older / "bin/engine").is_file()
    assert not (older / "cuda").exists()


# the host's compiler


@pytest.mark.skipif(not Path(f"/usr/bin/g++-{GCC}").exists(), reason="no gcc by its release on this machine")
def test_the_gcc_that_nvcc_knows_is_found_before_the_hosts_own(host):
    assert host.install(pinned(*WHEELS), gcc=GCC).returncode == 0
    folder = host.release() / "cuda/bin"
    for name, program in (("gcc", "gcc"), ("cc", "gcc"), ("g++", "g++"), ("c++", "g++")):
        assert (folder / name).readlink() == Path(f"/usr/bin/{program}-{GCC}")


def test_a_gcc_that_is_not_there_is_named(host):
    done = host.install(pinned(*WHEELS), gcc="99")
    assert done.returncode == 1
    assert "no CUDA toolkit for engine-1: /usr/bin/gcc-99 is not there" in done.stderr
    assert host.left() == set()


# the host's C library


@pytest.mark.parametrize(("glibc", "throws"), [("2.41", ""), ("2.42", "noexcept(true)"), ("3.0", "noexcept(true)")])
def test_rsqrt_is_declared_as_the_c_library_declares_it(cuda, glibc, throws):
    header = (cuda / "include/crt/math_functions.h").read_text().replace("#  include <features.h>", "#")
    major, minor = glibc.split(".")
    prerequisite = f"#define __GLIBC_PREREQ(a, b) ({major} > a || ({major} == a && {minor} >= b))\n"
    made = subprocess.run(
        ["gcc", "-E", "-P", "-"], input=prerequisite + header, capture_output=True, text=True, check=True
    )
    assert made.stdout.split() == f"extern double rsqrt(double x) {throws};".split()
    assert not (cuda / "include/crt/math_functions.h").is_symlink()


def test_headers_that_know_it_are_taken_as_they_are(host, index):
    newer = nvcc("rsqrt(double x) _NV_RSQRT_SPECIFIER;")
    index.add(newer)
    assert host.install(pinned(*WHEELS[:2], newer)).returncode == 0
    assert (host.release() / "cuda/include/crt").is_symlink()
