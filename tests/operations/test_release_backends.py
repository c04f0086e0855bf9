"""release.sh and build.sh: no program becomes a release that lacks the backend it was planned for. Real programs."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from ctypes.util import find_library
from pathlib import Path

import pytest

from tests import needs
from tests.operations import scripting
from tests.operations.scripting import run

pytestmark = needs.programs("gcc")

RUNS = "int main(void) { return 0; }"
CRASHES = "int main(void) { return 3; }"
LIBRARY = "int a(void) { return 0; }"
# What each backend's programs link, in versions that no machine has, and what the backend's own file is called.
LINKS = {
    "cuda": ("libcublas.so.97", "libggml-cuda.so"),
    "rocm": ("libhipblas.so.97", "libggml-hip.so"),
    "vulkan": ("libvulkan.so.97", "libggml-vulkan.so"),
    "sycl": ("libsycl.so.97", "libggml-sycl.so"),
}


def compiled(source: str, path: Path, *options: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["gcc", "-o", str(path), "-x", "c", "-", "-x", "none", *options], input=source, text=True, check=True
    )
    return path


class Toolkit:
    """Stand-ins for a toolkit's libraries, where the programs linked to them look for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def links(self, libraries: Sequence[str]) -> list[str]:
        for name in libraries:
            compiled(LIBRARY, self.folder / name, "-shared", "-fPIC", f"-Wl,-soname,{name}")
        found = [str(self.folder / name) for name in libraries]
        return ["-Wl,--no-as-needed", *found, f"-Wl,-rpath,{self.folder}"]

    def program(self, path: Path, *libraries: str, source: str = RUNS) -> Path:
        return compiled(source, path, *self.links(libraries))

    def module(self, path: Path, *libraries: str) -> Path:
        return compiled(LIBRARY, path, "-shared", "-fPIC", *self.links(libraries))

    def without(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink()


@pytest.fixture
def toolkit(tmp_path: Path) -> Toolkit:
    return Toolkit(tmp_path / "toolkit")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    (tmp_path / "releases").mkdir()
    return tmp_path / "releases" / "llama.cpp-new"


def released(release: Path, files: Path, backend: str) -> subprocess.CompletedProcess[str]:
    """Pack what is in `files` and make a release of it."""
    packed = files.with_suffix(".tar.gz")
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(files, "llama-b1")
    done = run("release.sh", release, packed, backend)
    assert release.exists() == (done.returncode == 0)
    assert [entry.name for entry in release.parent.iterdir()] == ([release.name] if release.exists() else [])
    return done


@pytest.mark.parametrize("backend", LINKS)
def test_a_program_that_links_its_backend_is_taken(tmp_path, toolkit, release, backend):
    toolkit.program(tmp_path / "files" / "llama-server", LINKS[backend][0])
    done = released(release, tmp_path / "files", backend)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("backend", LINKS)
def test_a_program_for_the_cpu_alone_is_refused_where_a_gpu_is_planned(tmp_path, toolkit, release, backend):
    toolkit.program(tmp_path / "files" / "llama-server")
    done = released(release, tmp_path / "files", backend)
    assert done.returncode == 1
    assert f"no {backend} in it" in done.stderr


def test_a_program_with_another_backend_is_refused(tmp_path, toolkit, release):
    toolkit.program(tmp_path / "files" / "llama-server", LINKS["vulkan"][0])
    assert "no cuda in it" in released(release, tmp_path / "files", "cuda").stderr


def test_a_backend_that_nobody_knows_is_never_taken_for_there(tmp_path, toolkit, release):
    toolkit.program(tmp_path / "files" / "llama-server", LINKS["vulkan"][0])
    assert "cannot be told" in released(release, tmp_path / "files", "metal").stderr


@pytest.mark.parametrize("backend", LINKS)
def test_a_backend_may_lie_beside_the_program(tmp_path, toolkit, release, backend):
    library, module = LINKS[backend]
    toolkit.program(tmp_path / "files" / "llama-server")
    toolkit.module(tmp_path / "files" / module, library)
    done = released(release, tmp_path / "files", backend)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("backend", LINKS)
def test_a_backend_that_could_not_be_loaded_is_refused_though_the_program_runs(tmp_path, toolkit, release, backend):
    library, module = LINKS[backend]
    program = toolkit.program(tmp_path / "files" / "llama-server")
    toolkit.module(tmp_path / "files" / module, library)
    toolkit.without(library)
    assert subprocess.run([program], check=False).returncode == 0
    done = released(release, tmp_path / "files", backend)
    assert done.returncode == 1
    assert f"cannot use {backend} on this host" in done.stderr
    assert f"{library} => not found" in done.stderr


@needs.does_not_arise(find_library("cuda") is not None, "this machine has a CUDA driver")
def test_a_program_may_wait_for_the_cuda_driver_and_for_nothing_else(tmp_path, toolkit, release):
    program = toolkit.program(tmp_path / "files" / "llama-server", "libcublas.so.97", "libcuda.so.1")
    toolkit.without("libcuda.so.1")
    assert subprocess.run([program], capture_output=True, check=False).returncode == 127
    assert released(release, tmp_path / "files", "cuda").returncode == 0
    shutil.rmtree(release)
    toolkit.without("libcublas.so.97")
    done = released(release, tmp_path / "files", "cuda")
    assert done.returncode == 1
    assert "libcublas.so.97 => not found" in done.stderr
    assert "libcuda" not in done.stderr


def test_with_the_driver_there_the_program_has_to_run(tmp_path, toolkit, release):
    path = tmp_path / "files" / "llama-server"
    toolkit.program(path, "libcublas.so.97", "libcuda.so.1", source=CRASHES)
    done = released(release, tmp_path / "files", "cuda")
    assert done.returncode == 1
    assert "does not run on this host" in done.stderr


# build.sh, with stand-ins for pip and cmake

PIP = """#!/bin/sh
case "$*" in *download*)
  mkdir -p "$WORK/source" && tar -C "$WORK/dist" -czf "$WORK/source/x.tar.gz" llama ;;
esac
"""
CMAKE = """#!/bin/sh
echo "$ROOT|$COMPILER|$*" >>"$WORK/said"
[ "$1" != --build ] || { mkdir -p "$WORK/build/bin" && cp "$WORK/built" "$WORK/build/bin/llama-server"; }
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    (folder / "dist" / "llama").mkdir(parents=True)
    (folder / "dist" / "llama" / "LICENSE").touch()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"python3": PIP, "cmake": CMAKE}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setitem(scripting.ENVIRONMENT, "PATH", f"{programs}:{scripting.ENVIRONMENT['PATH']}")
    monkeypatch.setitem(scripting.ENVIRONMENT, "WORK", str(folder))
    return folder


def build(work: Path, backend: str, *words: str) -> subprocess.CompletedProcess[str]:
    return run("build.sh", work, "llama", work / "built.tar.gz", 2, backend, *(words or ("",)))


def test_a_build_gets_its_options_and_environment_and_is_packed(toolkit, work):
    toolkit.program(work / "built", "libhipblas.so.97")
    done = build(work, "rocm", "", "ROOT=/opt/a b", "-DTARGETS=gfx1100;gfx1201", "-DGGML_HIP=ON")
    assert (done.returncode, done.stderr) == (0, "")
    configured, compiling = (work / "said").read_text().splitlines()
    assert configured.startswith("/opt/a b||-S ")
    assert "-DGGML_NATIVE=OFF" in configured
    assert configured.endswith(" -DTARGETS=gfx1100;gfx1201 -DGGML_HIP=ON")
    assert compiling.startswith("/opt/a b||--build ")
    with tarfile.open(work / "built.tar.gz") as tar:
        assert sorted(tar.getnames()) == ["LICENSE", "bin", "bin/llama-server"]


def test_a_compiler_that_has_to_be_set_up_first_is(toolkit, work):
    toolkit.program(work / "built", "libsycl.so.97")
    setup = work / "set vars.sh"
    # As Intel's: it reads arguments, and says much.
    setup.write_text('[ "$*" = --force ] || exit 9\necho ready\nexport COMPILER=icpx\n')
    done = build(work, "sycl", str(setup), "-DGGML_SYCL=ON")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split("|")[1] for line in (work / "said").read_text().splitlines()] == ["icpx", "icpx"]


@pytest.mark.parametrize("backend", LINKS)
def test_a_build_without_its_backend_is_never_kept(toolkit, work, backend):
    toolkit.program(work / "built")
    done = build(work, backend)
    assert done.returncode == 1
    assert f"no {backend} in it" in done.stderr
    assert not (work / "built.tar.gz").exists()


def test_a_build_that_fails_says_what_the_compiler_said(work):
    done = build(work, "cpu")
    assert done.returncode == 1
    assert "built" in done.stderr
    assert not (work / "built.tar.gz").exists()
