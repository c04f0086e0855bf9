"""Operations: nothing where observed is wanted, and exactly the difference elsewhere."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import FileDownloadCommand, FileUploadCommand

from rackserve.catalog.loader import load_catalog
from rackserve.facts.packages import Dpkg, DpkgState, RpmAbsent
from rackserve.facts.paths import PathState, PathStates
from rackserve.facts.releases import Releases, ReleaseState
from rackserve.facts.services import Installed, InstalledServices
from rackserve.facts.units import ABSENT, Unit, UnitState
from rackserve.operations import release
from rackserve.operations.fetch import verified_file
from rackserve.operations.files import text_files
from rackserve.operations.packages import installed
from rackserve.operations.release import llama_server
from rackserve.operations.require import require
from rackserve.operations.service import cleared, compiles, only, serving
from rackserve.rendering.text import RenderedFile
from rackserve.runtimes.llamacpp_build import Recipe
from rackserve.runtimes.llamacpp_origins import FromArchive, FromPackage, FromSource
from tests.operations.hosts import on
from tests.operations.sending import FakeHost, commands, script_of

# require


def test_a_host_that_is_as_required_is_sent_nothing():
    assert commands(require, {}, problems=[]) == []


def test_a_host_that_is_not_as_required_fails_and_every_reason_reaches_the_operator():
    (command,) = commands(require, {}, problems=["it's $HOME", "50% `id`"])
    done = subprocess.run(["sh", "-c", command.get_raw_value()], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "it's $HOME\n50% `id`\n")


# packages


def test_packages_that_are_there_are_left_alone():
    state = DpkgState(frozenset({"curl", "python3"}), ())
    assert commands(installed, {Dpkg: state}, packages=["curl", "python3", "curl"], lock_timeout=9, manager="apt") == []


def test_missing_packages_alone_are_installed():
    state = DpkgState(frozenset({"curl"}), ())
    (command,) = commands(
        installed, {Dpkg: state}, packages=["python3", "curl", "cmake"], lock_timeout=9, manager="apt"
    )
    assert script_of(command) == ("packages.sh", "9", "cmake", "python3")


def test_an_interrupted_dpkg_is_settled_even_if_nothing_is_missing():
    state = DpkgState(frozenset({"curl"}), ("libc6",))
    (command,) = commands(installed, {Dpkg: state}, packages=["curl"], lock_timeout=9, manager="apt")
    assert script_of(command) == ("packages.sh", "9", "curl")


def test_on_a_host_with_dnf_what_nothing_provides_is_installed():
    wanted = {"packages": ["curl", "zstd"], "lock_timeout": 9, "manager": "dnf"}
    (command,) = commands(installed, {RpmAbsent: ("zstd",)}, **wanted)
    assert script_of(command) == ("refresh-rpm.sh", "9", "", "zstd")
    assert commands(installed, {RpmAbsent: ()}, **wanted) == []


# files

FILE = RenderedFile("/etc/systemd/system/a.service", "[Unit]\nDescription=it's $HOME 50%\n", "644")
AS_WANTED = PathState("644", "root", "root", 34, hashlib.sha256(FILE.text.encode()).hexdigest())


def test_files_that_are_as_planned_are_left_alone():
    assert commands(text_files, {PathStates: {FILE.path: AS_WANTED}}, files=[FILE]) == []
    assert commands(text_files, {}, files=[]) == []


@pytest.mark.parametrize(
    "state",
    [
        None,
        changed(AS_WANTED, mode="600"),
        changed(AS_WANTED, user="deploy"),
        changed(AS_WANTED, group="deploy"),
        changed(AS_WANTED, sha256="0" * 64),
    ],
)
def test_a_file_that_differs_in_anything_is_written_and_no_other(state):
    other = RenderedFile("/etc/other", "same\n", "755")
    there = {other.path: PathState("755", "root", "root", 5, hashlib.sha256(b"same\n").hexdigest())}
    (command,) = commands(text_files, {PathStates: {FILE.path: state, **there}}, files=[other, FILE])
    assert command.connector_arguments["_stdin"] == [FILE.text]
    assert FILE.path in command.get_raw_value()
    assert "Description" not in command.get_raw_value()


# fetch

MODEL = {
    "url": "https://hub/x.gguf",
    "sha256": "1" * 64,
    "size_bytes": 77,
    "destination": "/srv/models/m/x.gguf",
    "hub": "https://hub",
}


def test_a_model_in_place_is_not_fetched_again():
    state = PathState("644", "root", "root", 77, "-")
    assert commands(verified_file, {PathStates: {MODEL["destination"]: state}}, **MODEL) == []


@pytest.mark.parametrize("states", [{}, {"/srv/models/m/x.gguf": PathState("644", "root", "root", 76, "-")}])
def test_a_model_that_is_missing_or_of_another_size_is_fetched(states):
    (command,) = commands(verified_file, {PathStates: states}, **MODEL)
    assert script_of(command) == ("fetch.sh", "https://hub/x.gguf", "1" * 64, "77", "/srv/models/m/x.gguf")


@pytest.mark.parametrize(
    ("hub", "sent"),
    [("https://hub", True), ("https://hub/", True), ("https://hub.example", False), ("https://hu", False)],
)
def test_the_hubs_token_goes_with_addresses_of_the_hub_and_no_other(tmp_path, hub, sent):
    token_file = tmp_path / "token"
    token_file.write_text("hf_canary\n")
    token_file.chmod(0o600)
    asked = {**MODEL, "hub": hub, "token_file": str(token_file)}
    (command,) = commands(verified_file, {PathStates: {}}, **asked)
    (text,) = command.connector_arguments["_stdin"]
    assert ("rackserve_hub_token=hf_canary\n" in text, "hf_canary" in text) == (sent, sent)
    assert "hf_canary" not in command.get_raw_value()


# services

RUNS = UnitState(
    "active", enabled=True, needs_reload=False, digest="d", current_program=True, current_key=True, watched=True
)
UNIT = {"unit": "rackserve@chat.service", "digest": "d", "program": "/p", "key_file": "/k", "timeout": 60}


def test_a_service_that_serves_its_plan_is_left_alone():
    assert commands(serving, {Unit: RUNS}, **UNIT) == []


@pytest.mark.parametrize(
    "state",
    [
        ABSENT,
        changed(RUNS, active="failed"),
        changed(RUNS, enabled=False),
        changed(RUNS, needs_reload=True),
        changed(RUNS, digest="earlier"),
        changed(RUNS, current_program=False),
        changed(RUNS, current_key=False),
    ],
)
def test_a_service_that_does_not_is_started(state):
    (command,) = commands(serving, {Unit: state}, **UNIT)
    assert script_of(command) == ("start.sh", "rackserve@chat.service", "60", "program")


def test_a_health_check_that_is_stopped_or_changed_is_started_and_the_service_goes_on():
    (command,) = commands(serving, {Unit: changed(RUNS, watched=False)}, **UNIT)
    assert script_of(command) == ("watch.sh", "rackserve-health@chat.timer")


def test_a_head_whose_health_check_is_stopped_is_not():
    wanted = {key: value for key, value in UNIT.items() if key != "timeout"} | {"hosts": []}
    assert commands(cleared, {Unit: changed(RUNS, watched=False)}, **wanted) == []


CHECK = {key: value for key, value in UNIT.items() if key != "timeout"} | {"check": "rackserve-check@chat.service"}


def test_a_release_that_the_service_runs_already_is_asked_nothing():
    # By its own path: the link to the release in use says nothing of the planned one.
    assert commands(compiles, {Unit: changed(RUNS, watched=False)}, **CHECK) == []


@pytest.mark.parametrize(
    "state",
    [ABSENT, changed(RUNS, active="failed"), changed(RUNS, digest="earlier"), changed(RUNS, current_program=False)],
)
def test_a_release_that_is_to_be_started_is_asked_before(state):
    (command,) = commands(compiles, {Unit: state}, **CHECK)
    assert script_of(command) == ("compile-check.sh", "rackserve-check@chat.service", "rackserve@chat.service")


def test_what_asks_for_a_service_that_compiles_no_more_goes_and_the_service_stays():
    found = {InstalledServices: Installed(("chat", "new"), ("chat", "new"))}
    (command,) = commands(only, found, names=["chat", "new"], checked=["new"])
    assert script_of(command) == ("forget-check.sh", "rackserve-check@chat.service")
    assert commands(only, found, names=["chat", "new"], checked=["chat", "new"]) == []


def test_a_service_in_a_container_is_started_as_one():
    (command,) = commands(serving, {Unit: ABSENT}, **UNIT | {"program": None})
    assert script_of(command) == ("start.sh", "rackserve@chat.service", "60", "container")


def test_a_start_is_told_the_folder_that_it_may_clear():
    (command,) = commands(serving, {Unit: ABSENT}, **UNIT | {"caches": "/var/cache/rackserve/chat"})
    assert script_of(command) == ("start.sh", "rackserve@chat.service", "60", "program", "/var/cache/rackserve/chat")


def test_services_that_nobody_planned_are_removed_and_no_other():
    assert commands(only, {InstalledServices: Installed(("chat",))}, names=["chat", "new"]) == []
    sent = commands(only, {InstalledServices: Installed(("chat", "old"), ("older",))}, names=["chat"])
    assert [script_of(command) for command in sent] == [("remove-service.sh", "old"), ("remove-service.sh", "older")]


# releases

PACKAGE = FromPackage("llama.cpp-tools", "/usr/bin/llama-server")
ARCHIVE = FromArchive("https://releases/x.tar.gz", "2" * 64, ())
FOLDER = "/opt/rackserve/releases"
ACTIVATE = ("/opt/rackserve/current/llama.cpp", "3", "/var/cache/rackserve")


def release_commands(origin: Any, state: ReleaseState, **facts: Any) -> list[Any]:
    return commands(llama_server, {Releases: state, **facts}, origin=origin, lock_timeout=9, manager="apt")


@pytest.mark.parametrize("origin", [PACKAGE, ARCHIVE])
def test_a_release_that_is_current_is_left_alone(origin):
    assert release_commands(origin, ReleaseState(frozenset({origin.release}), origin.release)) == []


@pytest.mark.parametrize("origin", [PACKAGE, ARCHIVE])
def test_a_release_that_is_complete_is_only_switched_to(origin):
    (command,) = release_commands(origin, ReleaseState(frozenset({origin.release, "x"}), "x"))
    assert script_of(command) == ("activate.sh", f"{FOLDER}/{origin.release}", *ACTIVATE)


def test_a_link_to_an_incomplete_release_is_not_trusted():
    sent = release_commands(PACKAGE, ReleaseState(frozenset(), PACKAGE.release))
    assert [script_of(command)[0] for command in sent] == ["release.sh", "activate.sh"]


def test_an_archive_is_fetched_unpacked_switched_to_and_removed():
    archive = f"/var/cache/rackserve/archives/{ARCHIVE.release}.tar.gz"
    fetch, unpack, remove, activate = release_commands(ARCHIVE, ReleaseState(frozenset(), ""))
    assert script_of(fetch) == ("fetch.sh", ARCHIVE.url, ARCHIVE.sha256, "0", archive)
    assert script_of(unpack) == ("release.sh", f"{FOLDER}/{ARCHIVE.release}", archive, "cpu")
    assert remove.get_raw_value() == f"rm -f {archive}"
    assert script_of(activate) == ("activate.sh", f"{FOLDER}/{ARCHIVE.release}", *ACTIVATE)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FromSource:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return FromSource(load_catalog().llamacpp.build, "bookworm", "x86_64", ("g++",), ("libgomp1",), 2)


def shape(sent: list[Any]) -> list[str]:
    """One word per command: the script, the kind of transfer, or the program."""
    words = []
    for command in sent:
        if isinstance(command, FileUploadCommand | FileDownloadCommand):
            words.append("upload" if isinstance(command, FileUploadCommand) else "download")
        elif command.get_raw_value().startswith("sh -s"):
            words.append(script_of(command)[0])
        else:
            words.append(command.get_raw_value().split()[0])
    return words


def kept_archive(tmp_path: Path, source: FromSource) -> Path:
    return tmp_path / "rackserve" / "builds" / f"{source.release}.tar.gz"


def test_a_build_that_is_kept_is_uploaded_and_checked(tmp_path, source):
    kept = kept_archive(tmp_path, source)
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"built")
    sent = release_commands(source, ReleaseState(frozenset(), ""))
    assert shape(sent) == ["mkdir", "upload", "sh", "release.sh", "rm", "activate.sh"]
    assert hashlib.sha256(b"built").hexdigest() in sent[2].get_raw_value()
    again = release_commands(source, ReleaseState(frozenset(), ""))
    assert sent[1].remote_temp_filename != again[1].remote_temp_filename


@pytest.mark.parametrize("name", ["h1", "@ssh/h1"])
def test_the_first_host_builds_and_the_result_is_kept(tmp_path, source, name):
    kept = kept_archive(tmp_path, source)
    host = FakeHost({Releases: ReleaseState(frozenset(), ""), Dpkg: DpkgState(frozenset(), ())}, name=name)
    sent = []
    with on(host):
        for command in llama_server._inner(origin=source, lock_timeout=9, manager="apt"):
            sent.append(command)
            if isinstance(command, FileDownloadCommand):
                # What pyinfra does with it.
                Path(command.dest).write_bytes(b"built")
    built = ["packages.sh", "sh", "sh", "build.sh", "download"]
    assert shape(sent) == [*built, "mkdir", "upload", "sh", "release.sh", "rm", "activate.sh"]
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_a_build_is_told_what_it_is_for_and_the_release_is_checked_for_it(tmp_path, source):
    recipe = Recipe("sycl-1", ("-DONE=1;2", "-DTWO"), ("ROOT=/opt",), "/opt/set up.sh")
    source = changed(source, backend="sycl", recipe=recipe)
    host = FakeHost({Releases: ReleaseState(frozenset(), ""), Dpkg: DpkgState(frozenset({"g++"}), ())})
    sent = []
    with on(host):
        for command in llama_server._inner(origin=source, lock_timeout=9, manager="apt"):
            sent.append(command)
            if isinstance(command, FileDownloadCommand):
                Path(command.dest).write_bytes(b"built")
    build, release = (script_of(sent[shape(sent).index(name)]) for name in ("build.sh", "release.sh"))
    assert build[4:] == ("2", "sycl", "/opt/set up.sh", "ROOT=/opt", "-DONE=1;2", "-DTWO")
    assert release[-1] == "sycl"
    assert kept_archive(tmp_path, source).name.endswith("-bookworm-x86_64-sycl-1.tar.gz")


def test_an_upload_that_was_cut_off_is_never_taken_for_the_result_of_a_build(source):
    # build.sh takes an archive that is there for its own; a shipped one may have arrived in part.
    host = FakeHost({Releases: ReleaseState(frozenset(), ""), Dpkg: DpkgState(frozenset(), ())})
    sent = []
    with on(host):
        for command in llama_server._inner(origin=source, lock_timeout=9, manager="apt"):
            sent.append(command)
            if isinstance(command, FileDownloadCommand):
                Path(command.dest).write_bytes(b"built")
    result = script_of(sent[shape(sent).index("build.sh")])[3]
    (uploaded,) = [command.dest for command in sent if isinstance(command, FileUploadCommand)]
    (fetched,) = [command.src for command in sent if isinstance(command, FileDownloadCommand)]
    assert fetched == result
    assert uploaded != result


def test_a_dry_run_of_a_build_holds_up_no_other_host(source):
    # pyinfra's prepare stage reads the first command of each host and drops the rest.
    for name in ("h1", "h2"):
        host = FakeHost({Releases: ReleaseState(frozenset(), ""), Dpkg: DpkgState(frozenset(), ())}, name=name)
        with on(host):
            generator = llama_server._inner(origin=source, lock_timeout=9, manager="apt")
            assert script_of(next(generator))[0] == "packages.sh"
            del generator
    assert not release._building[source.release].locked()
