"""environment.sh and its companions for real: uv installs wheels from an index that is made here."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rackserve.catalog.loader import load_catalog
from tests import needs
from tests.operations.environment_bench import (
    PYTHON,
    EnvironmentHost,
    Index,
    engine,
    indexing,
    install_uv,
    pinned,
    torch,
    wheel,
)

UV = f"uv-{load_catalog().uv.version}"
CUDA_TORCH = torch(cuda="13.0")
ENGINE = engine()


@pytest.fixture(scope="module")
def uv(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("uv")
    done = install_uv(folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "releases" / UV


@pytest.fixture
def index() -> Iterator[Index]:
    with indexing(Index().add(CUDA_TORCH, ENGINE)) as made:
        yield made


@pytest.fixture
def host(tmp_path, uv, index) -> EnvironmentHost:
    made = EnvironmentHost(tmp_path, uv)
    made.pip["index-url"] = f"{index.url}/simple"
    return made


def refused(done: subprocess.CompletedProcess[str], host: EnvironmentHost) -> str:
    """What the operator is told; nothing may be left that passes for a release."""
    assert done.returncode == 1
    assert host.left() == set()
    return done.stderr


# what is installed


def test_an_environment_is_exactly_what_is_pinned_and_runs_from_wherever_it_is_linked(host, tmp_path):
    done = host.install(pinned(CUDA_TORCH, ENGINE))
    assert (done.returncode, done.stderr) == (0, "")
    assert host.left() == {"engine-1"}
    assert (host.release() / "requirements.txt").read_text() == pinned(CUDA_TORCH, ENGINE)
    link = tmp_path / "current"
    link.symlink_to(host.release())
    said = subprocess.run([link / "bin" / "engine"], capture_output=True, text=True, check=True).stdout
    assert said == "serving with 13.0\n"
    installed = {path.name for path in host.release().glob("lib/python*/site-packages/*.dist-info")}
    assert installed == {"torch-9.9.dist-info", "engine-1.0.dist-info"}


def test_what_is_left_out_is_not_asked_for_though_a_package_needs_it(host, index):
    needs = "Requires-Dist: torch\nRequires-Dist: kernels\nRequires-Dist: more-kernels\n"
    asking = wheel("engine", "1.5", {"engine.py": ""}, needs)
    index.add(asking)
    requirements = pinned(CUDA_TORCH, asking)
    assert "kernels" in refused(host.install(requirements, version="1.5", without="kernels"), host)
    # What the file itself pins is left out too.
    pinned_kernels = wheel("kernels", "1.0", {"kernels.py": ""})
    index.add(pinned_kernels)
    requirements += pinned(pinned_kernels)
    done = host.install(requirements, version="1.5", without="kernels more-kernels")
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(host.release().glob("lib/python*/site-packages/kernels*"))
    assert not list((host.work / "environments").iterdir())


def test_services_that_may_not_write_find_bytecode_and_read_everything(host):
    assert host.install(pinned(CUDA_TORCH, ENGINE)).returncode == 0
    packages = next(host.release().glob("lib/python*/site-packages"))
    assert len(list(packages.rglob("torch/__pycache__/*.pyc"))) == 2
    for path in (packages, packages / "engine.py", host.release() / "bin" / "engine"):
        assert path.stat().st_mode & 0o027 == (0o005 if path.is_dir() or path.name == "engine" else 0o004)


def test_a_second_run_asks_nobody(host, index):
    assert host.install(pinned(CUDA_TORCH, ENGINE)).returncode == 0
    index.asked.clear()
    done = host.install("nothing that could be installed")
    assert (done.returncode, done.stdout, done.stderr, index.asked) == (0, "", "", [])


def test_another_version_downloads_what_differs_only(host, index):
    assert host.install(pinned(CUDA_TORCH, ENGINE)).returncode == 0
    newer = engine("2.0")
    index.add(newer).asked.clear()
    assert host.install(pinned(CUDA_TORCH, newer), "engine-2", version="2.0").returncode == 0
    assert {path for path in index.asked if path.startswith("/files/")} == {f"/files/{newer[0]}"}
    assert host.left() == {"engine-1", "engine-2"}


# what is refused


def test_a_wheel_with_other_bytes_is_refused_by_name_and_hash(host, index):
    requirements = pinned(CUDA_TORCH, ENGINE)
    index.files[ENGINE[0]] = engine()[1] + b"\0"
    said = refused(host.install(requirements), host)
    assert "not installed: engine-1" in said
    assert "Hash mismatch" in said
    assert requirements.split("sha256:")[-1].strip() in said


@pytest.mark.parametrize(
    ("made", "planned", "found"),
    [
        (torch(), "cuda 13.0", "cpu"),
        (torch(cuda="12.8"), "cuda 13.0", "cuda 12.8"),
        (torch(cuda="13.2"), "cuda 13.0", "cuda 13.2"),
        (torch(cuda="1.30"), "cuda 1.3", "cuda 1.30"),
        (torch(cuda="13.0"), "rocm 7.2", "cuda 13.0"),
        (torch(hip="7.0.51831"), "rocm 7.2", "rocm 7.0.51831"),
        (torch(cuda="13.0"), "cpu ", "cuda 13.0"),
    ],
)
def test_wheels_for_another_backend_are_refused_and_both_are_named(host, index, made, planned, found):
    index.add(made)
    backend, family = planned.split(" ")
    said = refused(host.install(pinned(made, ENGINE), backend=backend, family=family), host)
    assert f"torch 9.9 computes with {found}, planned is {planned.strip()}\n" in said


@pytest.mark.parametrize(
    ("made", "planned"),
    [
        (torch(), "cpu "),
        (torch(hip="7.2.53211-e1a6bc5663"), "rocm 7.2"),
        (torch(cuda="13.0"), "cuda 13"),
        (torch(cuda="12.8"), "cuda "),
    ],
)
def test_wheels_for_the_planned_backend_are_taken(host, index, made, planned):
    index.add(made)
    backend, family = planned.split(" ")
    assert host.install(pinned(made, ENGINE), backend=backend, family=family).returncode == 0


def test_another_version_of_the_runtime_than_planned_is_refused(host):
    said = refused(host.install(pinned(CUDA_TORCH, ENGINE), version="1.1"), host)
    assert "it has engine 1.0, planned is 1.1" in said


def test_another_python_than_planned_is_refused(host):
    said = refused(host.install(pinned(CUDA_TORCH, ENGINE), python="3.99"), host)
    assert f"its Python is {PYTHON}, planned is 3.99" in said


def test_an_interpreter_that_is_not_there_is_named(host):
    said = refused(host.install(pinned(CUDA_TORCH, ENGINE), program="/usr/bin/python3.99", python="3.99"), host)
    assert "no environment with Python 3.99" in said
    assert "/usr/bin/python3.99" in said


def test_a_runtime_that_cannot_be_imported_is_refused_with_the_reason(host, index):
    broken = wheel("torch", "9.9", {"torch/__init__.py": "import ctypes\nctypes.CDLL('libnot-there.so.1')\n"})
    index.add(broken)
    assert "libnot-there.so.1" in refused(host.install(pinned(broken, ENGINE)), host)


def test_what_is_not_pinned_is_not_installed(host):
    said = refused(host.install(pinned(ENGINE)), host)
    assert "torch" in said


def test_a_requirement_without_a_hash_is_refused(host):
    said = refused(host.install(pinned(CUDA_TORCH) + "engine==1.0\n"), host)
    assert "--require-hashes" in said


def test_nothing_is_compiled_from_source(host, index):
    source = ("engine-1.0.tar.gz", b"whatever")
    index.files = dict([CUDA_TORCH, source])
    requirements = pinned(CUDA_TORCH) + pinned(("engine-1.0-x", source[1]))
    said = refused(host.install(requirements), host)
    assert "engine" in said
    assert "--no-build" in said or "no usable wheels" in said


def test_an_index_that_is_down_is_told_without_its_password(host):
    host.pip["index-url"] = "http://reader:s3cret@127.0.0.1:9/simple"
    done = host.install(pinned(CUDA_TORCH, ENGINE))
    assert "127.0.0.1:9" in refused(done, host)
    assert "s3cret" not in done.stdout + done.stderr


# room


def test_a_disk_that_is_too_full_is_told_before_anything_is_fetched(host, index):
    said = refused(host.install(pinned(CUDA_TORCH, ENGINE), gib=10**7), host)
    assert "MiB free, 10240000000 MiB are needed for engine-1" in said
    assert index.asked == []


def test_what_an_interrupted_run_has_fetched_needs_no_room_again(host):
    needed = shutil.disk_usage(host.folder).free // 2**30 + 4
    assert "are needed" in refused(host.install(pinned(CUDA_TORCH, ENGINE), gib=needed), host)
    with (host.work / "uv" / "fetched").open("wb") as fetched:
        fetched.truncate(8 * 2**30)
    assert host.install(pinned(CUDA_TORCH, ENGINE), gib=needed).returncode == 0


def refused_releases(host: EnvironmentHost, *names: str) -> None:
    """Releases that were made one after the other, the newest first, each with what a service has compiled with it."""
    for age, name in enumerate(names):
        (host.release(name) / "bin").mkdir(parents=True, exist_ok=True)
        (host.work / "chat/releases" / name).mkdir(parents=True)
        os.utime(host.release(name), (time.time() - 100 - age, time.time() - 100 - age))


def test_releases_that_nobody_switched_to_make_room_for_a_new_one(host):
    # The oldest is in use, and the one before it is planned: neither goes, and nothing of another runtime.
    refused_releases(host, "engine-5", "engine-4", "engine-3", "engine-2", "engine-1", "engine-0", "other-1")
    for link, name in (("current", "engine-0"), ("planned", "engine-1")):
        (host.folder / link).mkdir()
        (host.folder / link / "engine").symlink_to(host.release(name))
    assert host.install(pinned(CUDA_TORCH, ENGINE), "engine-6").returncode == 0
    left = {"engine-5", "engine-4", "engine-3", "engine-1", "engine-0", "other-1"}
    assert host.left() == {"engine-6", *left}
    assert {path.name for path in (host.work / "chat/releases").iterdir()} == left


def test_a_release_that_is_there_makes_none_go(host):
    assert host.install(pinned(CUDA_TORCH, ENGINE)).returncode == 0
    refused_releases(host, *(f"engine-{number}" for number in range(2, 7)))
    assert host.install(pinned(CUDA_TORCH, ENGINE)).returncode == 0
    assert len(host.left()) == 6


def test_what_was_fetched_for_releases_that_go_is_no_room_that_is_there_already(host, index):
    assert host.install(pinned(CUDA_TORCH, ENGINE), "engine-1").returncode == 0
    assert list((host.work / "uv").rglob("engine-1.0.dist-info"))
    os.utime(host.release("engine-1"), (0, 0))
    newer = engine("2.0")
    index.add(newer)
    refused_releases(host, "engine-2", "engine-3", "engine-4")
    assert host.install(pinned(CUDA_TORCH, newer), "engine-5", version="2.0").returncode == 0
    assert host.left() == {"engine-2", "engine-3", "engine-4", "engine-5"}
    assert not list((host.work / "uv").rglob("engine-1.0.dist-info"))


# interruptions


def test_a_run_that_was_killed_leaves_no_release_and_the_next_one_makes_it(host, index):
    index.stalled = threading.Event()
    first = host.start("environment.sh", *host.words(pinned(CUDA_TORCH, ENGINE)))
    assert index.downloading.wait(60)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=10)
    assert host.left() == {".staging-engine-1"}
    index.stalled.set()
    assert host.install(pinned(CUDA_TORCH, ENGINE)).returncode == 0
    assert host.left() == {"engine-1"}


def test_what_a_killed_run_left_is_not_mixed_in(host):
    left = host.releases / ".staging-engine-1" / "lib"
    left.mkdir(parents=True)
    (left / "old").touch()
    assert host.install(pinned(CUDA_TORCH, ENGINE)).returncode == 0
    assert not (host.release() / "lib" / "old").exists()


def test_two_runs_at_once_make_one_environment(host):
    words = host.words(pinned(CUDA_TORCH, ENGINE))
    both = [host.start("environment.sh", *words) for _ in range(2)]
    said = [run.communicate(timeout=120) for run in both]
    assert [run.returncode for run in both] == [0, 0], said
    assert host.left() == {"engine-1"}


# what pip is told on the host


def test_further_indexes_and_folders_of_wheels_are_looked_through_for_the_right_bytes(host, index, tmp_path):
    # The first index has the same version with other bytes, as a repackager's has.
    index.files = dict([torch(cuda="12.8"), wheel("engine", "1.5", {"engine.py": "import repackaged\n"})])
    (tmp_path / "wheels").mkdir()
    with indexing(Index().add(CUDA_TORCH)) as further:
        host.pip |= {"extra-index-url": f"{further.url}/simple", "find-links": str(tmp_path / "wheels")}
        local = engine("1.5")
        (tmp_path / "wheels" / local[0]).write_bytes(local[1])
        assert host.install(pinned(CUDA_TORCH, local), version="1.5").returncode == 0


def test_what_pip_is_told_to_install_with_comes_before_what_it_is_told_in_general(host):
    host.pip_install["index-url"] = host.pip["index-url"]
    host.pip["index-url"] = "http://127.0.0.1:9/simple"
    assert host.install(pinned(CUDA_TORCH, ENGINE)).returncode == 0


@pytest.mark.parametrize("word", ["true", "1"])
def test_where_pip_is_to_ask_no_index_none_is_asked(host, index, tmp_path, word):
    (tmp_path / "wheels").mkdir()
    for name, content in (CUDA_TORCH, ENGINE):
        (tmp_path / "wheels" / name).write_bytes(content)
    host.pip |= {"no-index": word, "find-links": str(tmp_path / "wheels")}
    assert host.install(pinned(CUDA_TORCH, ENGINE)).returncode == 0
    assert index.asked == []


def test_the_proxy_that_pip_is_told_of_is_used(host, index):
    host.pip |= {"index-url": "http://packages.invalid/simple", "proxy": index.url}
    assert host.install(pinned(CUDA_TORCH, ENGINE)).returncode == 0
    assert "http://packages.invalid/simple/engine/" in index.asked


@needs.programs("openssl")
@pytest.mark.parametrize("trusting", ["cert", "trusted-host"])
def test_the_certificate_that_pip_is_told_of_is_trusted_and_no_other(host, tmp_path, trusting):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    made += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run([*made, "-keyout", key, "-out", certificate], capture_output=True, check=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with indexing(Index().add(CUDA_TORCH, ENGINE), tls) as secure:
        host.pip["index-url"] = f"{secure.url}/simple"
        assert "certificate" in refused(host.install(pinned(CUDA_TORCH, ENGINE)), host).lower()
        host.pip[trusting] = {"cert": str(certificate), "trusted-host": "127.0.0.1"}[trusting]
        assert host.install(pinned(CUDA_TORCH, ENGINE)).returncode == 0


def test_a_python_of_uvs_own_is_fetched_from_the_mirror(host, index):
    said = refused(
        host.install(pinned(CUDA_TORCH, ENGINE), program="", python="3.12", mirror=f"{index.url}/pythons"), host
    )
    assert "no environment with Python 3.12" in said
    assert any(path.startswith("/pythons/") and "cpython-3.12" in path for path in index.asked)
