"""compile-check, run as a program with a toolkit that really compiles, and with what can be wrong with one."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import needs
from tests.libexec.helper_host import HelperHost, assert_refused
from tests.libexec.toolchain import INCOMPATIBLE, NINJA, toolkit

QUESTION = (
    *("--programs", "nvcc,ninja,c++,gcc", "--headers", "cuda.h,cuda_runtime.h,cuda/std/type_traits"),
    *("--libraries", "cudart,cuda", "--architecture", "90a", "--python-headers"),
)


class Release:
    """A release's toolkit, and the folder that its service keeps compiled kernels in."""

    def __init__(self, host: HelperHost, folder: Path) -> None:
        self.host, self.cuda, self.home = host, folder / "release/cuda", folder / "cache"
        toolkit(self.cuda)
        host.standin("ninja", NINJA)
        self.environment = {
            "PATH": f"{self.cuda}/bin:{host.bin}:{os.environ['PATH']}",
            "CUDA_HOME": str(self.cuda),
            "HOME": str(self.home),
            "TRITON_CACHE_DIR": f"{self.home}/triton",
        }

    def asked(self, *question: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.host.run("compile-check", *(question or QUESTION), **(self.environment | environment))

    def asked_on(self, options: str, *question: str) -> subprocess.CompletedProcess[str]:
        """The same where the caches are on a disk of their own, mounted with these options."""
        self.home.mkdir()
        mounting = 'mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@"'
        place = ["sh", "-c", mounting, "sh", options, str(self.home), str(self.host.libexec / "compile-check")]
        command = ["unshare", "--mount", "--propagation", "private", *place, *question]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture
def release(host: HelperHost, tmp_path: Path) -> Release:
    return Release(host, tmp_path)


def test_a_release_that_compiles_and_links_leaves_its_folders_and_nothing_in_them(release):
    done = release.asked()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("compile-check: compiled and linked in ")
    assert [path.name for path in release.home.rglob("*")] == ["triton"]


def test_what_is_compiled_for_is_the_card_and_what_is_linked_with_is_asked(release):
    """The words that nvcc and the linker get are FlashInfer's."""
    log = release.home.with_name("log")
    real = release.cuda / "bin/nvcc.real"
    (release.cuda / "bin/nvcc").rename(real)
    (release.cuda / "bin/nvcc").write_text(f'#!/bin/sh\necho "$*" >>{log}\nexec {real} "$@"\n')
    (release.cuda / "bin/nvcc").chmod(0o755)
    assert release.asked(CC="/usr/bin/g++").returncode == 0
    (told,) = log.read_text().splitlines()
    assert told.startswith("-gencode=arch=compute_90a,code=sm_90a ")
    assert " -ccbin /usr/bin/g++ " in told


def lost(*paths: str) -> Callable[[Release], None]:
    def lose(release: Release) -> None:
        for path in paths:
            (release.cuda / path).unlink()

    return lose


def saying(path: str, script: str) -> Callable[[Release], None]:
    def write(release: Release) -> None:
        (release.cuda / path).write_text(script)

    return write


FAULTS: dict[str, tuple[Callable[[Release], None], str]] = {
    "no nvcc": (lost("bin/nvcc"), "compile-check: nvcc: not found in "),
    "an nvcc that fails": (
        saying("bin/nvcc", "#!/bin/sh\necho 'nvcc fatal   : Unsupported gpu architecture' >&2; exit 1\n"),
        "nvcc says: nvcc fatal   : Unsupported gpu architecture\n",
    ),
    "headers of another release": (
        saying("include/cuda_runtime_api.h", "#define CUDART_MINOR 5\n"),
        f'error: #error "{INCOMPATIBLE}"\n',
    ),
    "a header that is missing": (lost("include/cuda/std/type_traits"), "cuda/std/type_traits: No such file"),
    "no library of the runtime": (lost("lib64/libcudart.so"), "cannot find -lcudart"),
    "no stub of the driver": (lost("lib64/stubs/libcuda.so"), "cannot find -lcuda"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_one_last_line_in_the_tools_own_words(release, fault):
    break_it, words = FAULTS[fault]
    break_it(release)
    done = release.asked()
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1] + "\n"
    assert last.startswith("compile-check: "), done.stderr
    assert words in last, done.stderr
    assert not list(release.home.glob("compile-check-*"))


def test_the_linker_is_told_apart_from_the_compiler(release):
    lost("lib64/stubs/libcuda.so")(release)
    assert "compile-check: c++ says: " in release.asked().stderr
    assert "compile-check: clang++-99 says: " in release.asked(CXX="clang++-99").stderr


def test_a_python_without_headers_is_told_with_the_compiler(release):
    release.host.standin("gcc", "#!/bin/sh\necho 'launcher.c:1:10: fatal error: Python.h: No such file'; exit 1\n")
    done = release.asked("--programs", "gcc", "--python-headers")
    assert_refused(done, "compile-check: gcc says: launcher.c:1:10: fatal error: Python.h: No such file")


@pytest.mark.parametrize("broken", ["", "triton"])
def test_a_folder_that_cannot_be_written_is_named(release, broken):
    # A file in its place: root may write everywhere else.
    place = release.home / broken
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("")
    done = release.asked()
    assert_refused(done, f"compile-check: {place}")
    assert "cannot be written: " in done.stderr


def test_a_release_without_cuda_and_a_unit_without_a_home_are_told(release):
    assert_refused(release.asked(CUDA_HOME=""), "compile-check: CUDA_HOME is not set")
    assert_refused(release.asked(HOME=""), "compile-check: HOME is not set")


def test_what_compiles_nothing_for_cards_is_asked_for_no_nvcc(release):
    lost("bin/nvcc")(release)
    assert release.asked("--programs", "gcc", "--python-headers", CUDA_HOME="").returncode == 0


def test_bad_arguments_are_told_apart(release):
    assert release.asked("--shell").returncode == 64


PYTHON_ALONE = ("--programs", "gcc", "--python-headers")
# Room for so much: what is written there by whom, and what is then said of it.
FULL = {
    "size=8k": "gcc says: /usr/bin/ld: final link failed: No space left on device",
    # The folder itself, one for Triton, and what is written to see whether something can be.
    "nr_inodes=3": "launcher.c cannot be written: No space left on device",
    "nr_inodes=2": " cannot be written: No space left on device",
}


@needs.root("unshare", "mount")
@pytest.mark.parametrize("options", FULL)
def test_a_full_disk_is_named(release, options):
    done = release.asked_on(options, *PYTHON_ALONE)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("compile-check: ")
    assert FULL[options] in last


@needs.root("unshare", "mount")
def test_a_disk_from_which_nothing_can_be_loaded_is_named(release):
    done = release.asked_on("noexec", *PYTHON_ALONE)
    assert_refused(done, f"compile-check: {release.home}: what is compiled there cannot be loaded: ")
    assert "mounted noexec" in done.stderr


def test_what_links_and_cannot_be_loaded_is_told_in_the_loaders_words(release):
    release.host.standin("gcc", "#!/bin/sh\necho 'no library' >launcher.so\n")
    done = release.asked(*PYTHON_ALONE)
    assert_refused(done, f"compile-check: {release.home}: what is compiled there cannot be loaded: ")
    assert "launcher.so: file too short" in done.stderr


def test_one_that_is_stopped_takes_its_folder_with_it(release):
    release.host.standin("gcc", "#!/bin/sh\nexec sleep 5\n")
    command = [release.host.libexec / "compile-check", *PYTHON_ALONE]
    with subprocess.Popen(command, env=release.environment) as process:
        deadline = time.monotonic() + 30
        while not list(release.home.glob("compile-check-*/launcher.c")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.terminate()
        # As systemd takes for a clean stop.
        assert process.wait(30) == -signal.SIGTERM
        assert not list(release.home.glob("compile-check-*"))


def test_what_a_killed_one_has_left_goes_with_the_next(release):
    (release.home / "compile-check-killed/deep").mkdir(parents=True)
    (release.home / "other").mkdir()
    assert release.asked(*PYTHON_ALONE).returncode == 0
    assert sorted(path.name for path in release.home.iterdir()) == ["other", "triton"]
