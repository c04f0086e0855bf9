"""toolkit.sh: the CUDA toolkit of links that a release with nvcc gets, and how older releases get theirs."""

from __future__ import annotations

import ctypes
import re
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from tests.operations.environment_bench import (
    EnvironmentHost,
    Index,
    engine,
    indexing,
    install_uv,
    pinned,
    toolkit,
    torch,
    wheel,
)

SCRIPT = (resources.files("rackserve.operations") / "scripts" / "toolkit.sh").read_text(encoding="utf-8")
PACKAGES = "lib/python3.11/site-packages"
LINKS_WITH = "int cuInit(unsigned); int started(void) { return cuInit(0); }\n"
# A gcc of this machine by its release.
GCC = next((path.name.partition("-")[2] for path in sorted(Path("/usr/bin").glob("gcc-[0-9]*"))), "")


def environment(folder: Path, files: dict[str, str]) -> Path:
    """An environment with these files among its packages."""
    for name, text in files.items():
        path = folder / PACKAGES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    return folder


def made(release: Path, gcc: str = "") -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", f'{SCRIPT}\nmake_toolkit "$@"', "sh", release, release / "cuda", gcc]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def cuda(tmp_path) -> Path:
    """The toolkit of a release."""
    release = environment(tmp_path / "release", toolkit())
    done = made(release)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return release / "cuda"


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
    return re.findall(r"NEEDED.*\[(.*)\]", shown)


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


# the host's compiler


@pytest.mark.skipif(not Path(f"/usr/bin/g++-{GCC}").exists(), reason="no gcc by its release on this machine")
def test_the_gcc_that_nvcc_knows_is_found_before_the_hosts_own(tmp_path):
    release = environment(tmp_path, toolkit())
    assert made(release, GCC).returncode == 0
    for name, program in (("gcc", "gcc"), ("cc", "gcc"), ("g++", "g++"), ("c++", "g++")):
        assert (release / "cuda/bin" / name).readlink() == Path(f"/usr/bin/{program}-{GCC}")


def test_a_gcc_that_is_not_there_is_named(tmp_path):
    done = made(environment(tmp_path, toolkit()), "99")
    assert (done.returncode, done.stdout) == (1, "/usr/bin/gcc-99 is not there\n")


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


def test_headers_that_know_it_are_taken_as_they_are(tmp_path):
    release = environment(tmp_path, toolkit("rsqrt(double x) _NV_RSQRT_SPECIFIER;"))
    assert made(release).returncode == 0
    assert (release / "cuda/include/crt").is_symlink()


# as environment.sh has it made

NVCC = wheel("nvidia_cuda_nvcc", "13.0.88", toolkit())
WHEELS = (torch(cuda="13.0"), engine(), NVCC)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> EnvironmentHost:
    """A host with a release that has nvcc, and no index any more."""
    folder = tmp_path_factory.mktemp("uv")
    assert install_uv(folder).returncode == 0
    host = EnvironmentHost(tmp_path_factory.mktemp("host"), next((folder / "releases").iterdir()))
    with indexing(Index().add(*WHEELS)) as index:
        host.pip["index-url"] = f"{index.url}/simple"
        done = host.install(pinned(*WHEELS))
    assert (done.returncode, done.stderr) == (0, "")
    return host


@pytest.fixture
def older(installed) -> EnvironmentHost:
    """The same as an earlier version of rackserve made it."""
    subprocess.run(["rm", "-rf", installed.release() / "cuda"], check=True)
    return installed


def test_a_new_release_has_it(installed):
    assert (installed.release() / "cuda/bin/nvcc").is_file()
    assert installed.left() == {"engine-1"}


def test_an_older_release_gets_it_without_an_index_and_nothing_else_of_it_is_touched(older):
    release = older.release()
    before = {path: path.lstat().st_mtime_ns for path in release.rglob("*")}
    # What an interrupted run may have left of it.
    (release / "cuda/bin").mkdir(parents=True)
    (release / "cuda/half").touch()
    done = older.install(pinned(*WHEELS))
    assert (done.returncode, done.stderr) == (0, "")
    assert (release / "cuda/bin/nvcc").is_file()
    assert not (release / "cuda/half").exists()
    assert {path: path.lstat().st_mtime_ns for path in before} == before
    assert older.left() == {"engine-1"}
    made_at = (release / "cuda").stat().st_mtime_ns
    assert older.install(pinned(*WHEELS)).returncode == 0
    assert (release / "cuda").stat().st_mtime_ns == made_at


def test_where_it_cannot_have_one_an_older_release_stays_as_it_is(older):
    done = older.install(pinned(*WHEELS), gcc="99")
    assert done.returncode == 1
    assert "no CUDA toolkit for engine-1: /usr/bin/gcc-99 is not there" in done.stderr
    assert older.left() == {"engine-1"}
    assert (older.release() / "bin/engine").is_file()
    assert not (older.release() / "cuda").exists()


def test_a_release_without_nvcc_is_complete_without_it(older):
    packages = next(older.release().glob("lib/python*/site-packages"))
    (packages / "nvidia").rename(packages / "elsewhere")
    try:
        assert older.install(pinned(*WHEELS), gcc="99").returncode == 0
        assert not (older.release() / "cuda").exists()
    finally:
        (packages / "elsewhere").rename(packages / "nvidia")
