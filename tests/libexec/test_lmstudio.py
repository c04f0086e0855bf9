"""lmstudio, run as a program against the lab's stand-in for llmster: prepared, engine chosen, loaded, read back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rackserve.lab.runtime_archives import ENGINES, llmster_archive
from tests.libexec.helper_host import HelperHost, assert_refused
from tests.libexec.model_server import ModelServer
from tests.runtimes.archive_servers import ask, completion, free_port, planned, running, unpacked

VERSION = "0.0.25-1"
NEWER = "0.0.26-1"


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("llmster")
    for version in (VERSION, NEWER):
        llmster_archive(folder / f"{version}.tar.gz", version)
    cpu_only = tuple(name for name in ENGINES if "cuda" not in name)
    llmster_archive(folder / "cpu.tar.gz", VERSION, cpu_only)
    return {path.name.removesuffix(".tar.gz"): path for path in folder.iterdir()}


class Machine:
    """A host with releases of llmster, and the home of the service `chat`."""

    def __init__(self, folder: Path, archives: dict[str, Path]) -> None:
        self.folder, self.archives = folder, archives
        self.host = HelperHost(folder / "host", ModelServer())
        self.root, self.home, self.port = self.host.root, folder / "home", free_port()
        self.home.mkdir()
        self.studio = self.home / ".lmstudio"
        self.url = f"http://127.0.0.1:{self.port}"
        self.host.service(url=self.url, health="/lmstudio-greeting", key_file=None, start_s=20)
        self.host.quick("lmstudio", APPEAR_S=4, POLL_S=0.1)
        self.plan()
        self.current(VERSION)

    def plan(self, **changes: Any) -> None:
        """What rackserve writes down for the helper, with these changes."""
        launch = planned(self.folder, runtime="lmstudio", concurrency=1, port=self.port).launch
        ((path, text),) = launch.files
        model = self.folder / "models" / "me--made@1" / "made.gguf"
        self.host.write(path.lstrip("/"), json.dumps(json.loads(text) | {"model": str(model)} | changes))

    def current(self, name: str) -> None:
        """Have a release unpacked, and the link to it."""
        release = self.root / "opt/rackserve/releases" / f"lmstudio-{name}"
        if not release.exists():
            unpacked(self.archives[name], release)
        link = self.root / "opt/rackserve/current/lmstudio"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(release)

    def run(self, job: str) -> subprocess.CompletedProcess[str]:
        return self.host.run("lmstudio", job, "chat", "--root", str(self.root), HOME=str(self.home))

    @contextmanager
    def served(self) -> Iterator[None]:
        """The server, as `serve` starts it."""
        command = [str(self.host.libexec / "lmstudio"), "serve", "chat", "--root", str(self.root)]
        with running(command, {"HOME": str(self.home)}, self.folder, f"{self.url}/lmstudio-greeting"):
            yield

    def instance(self) -> dict[str, Any]:
        (model,) = ask(f"{self.url}/api/v1/models")["models"]
        (found,) = model["loaded_instances"]
        return dict(found)


@pytest.fixture
def machine(tmp_path: Path, archives: dict[str, Path]) -> Machine:
    return Machine(tmp_path, archives)


def selected(machine: Machine) -> list[str]:
    told = machine.studio / ".internal" / "http-server.json"
    port = json.loads(told.read_text())["port"]
    return [name for name, chosen in ask(f"http://127.0.0.1:{port}/engines") if chosen]


def test_a_bare_home_is_prepared_and_the_model_loaded_as_planned(machine):
    assert machine.run("prepare").returncode == 0
    assert not (machine.home / ".bashrc").exists()
    with machine.served():
        done = machine.run("load")
        assert (done.returncode, done.stderr) == (0, "")
        instance = machine.instance()
        assert instance["id"] == "chat"
        assert (instance["config"]["context_length"], instance["config"]["parallel"]) == (2048, 1)
        # The newest of those that suit, and not the CPU's, which is in use at first.
        assert selected(machine) == ["llama.cpp-linux-x86_64-nvidia-cuda12-avx2@2.41.0"]
        assert completion(machine.url)["model"] == "chat"


@pytest.mark.parametrize(
    ("engine", "name"),
    [("cpu", "llama.cpp-linux-x86_64-avx2@2.41.0"), ("vulkan", "llama.cpp-linux-x86_64-vulkan-avx2@2.41.0")],
)
def test_the_engine_is_the_planned_one(machine, engine, name):
    machine.plan(engine=engine)
    machine.run("prepare")
    with machine.served():
        assert machine.run("load").returncode == 0
        assert selected(machine) == [name]


def test_settings_keep_it_to_itself(machine):
    machine.run("prepare")
    server = json.loads((machine.studio / ".internal/http-server-config.json").read_text())
    assert (server["networkInterface"], server["port"], server["autoStartOnLaunch"]) == (
        "127.0.0.1",
        machine.port,
        True,
    )
    assert (server["justInTimeModelLoading"], server["logSensitiveData"], server["cors"]) == (False, False, False)
    settings = json.loads((machine.studio / "settings.json").read_text())
    assert settings["developer"] == {"autoUpdateExtensionPacks": False, "autoDeleteExtensionPacks": False}
    assert settings["modelLoadingGuardrails"]["mode"] == "off"


def test_what_llmster_has_added_to_its_settings_stays_and_what_it_changed_does_not(machine):
    machine.run("prepare")
    file = machine.studio / "settings.json"
    file.write_text(json.dumps({"language": "en", "developer": {"autoUpdateExtensionPacks": True, "own": 1}}))
    machine.run("prepare")
    settings = json.loads(file.read_text())
    assert settings["language"] == "en"
    assert settings["developer"] == {"autoUpdateExtensionPacks": False, "autoDeleteExtensionPacks": False, "own": 1}


def test_a_second_start_installs_nothing_anew(machine):
    machine.run("prepare")
    mark = machine.studio / "kept"
    mark.touch()
    assert machine.run("prepare").returncode == 0
    assert mark.exists()


def test_another_release_replaces_all_of_it_and_back_again(machine):
    machine.run("prepare")
    for version, other in ((NEWER, VERSION), (VERSION, NEWER)):
        machine.plan(version=version)
        machine.current(version)
        assert machine.run("prepare").returncode == 0
        assert (machine.studio / "llmster" / version / "llmster").exists()
        assert not (machine.studio / "llmster" / other).exists()
        with machine.served():
            assert machine.run("load").returncode == 0


def test_an_installation_that_broke_off_is_made_anew(machine):
    machine.run("prepare")
    shutil.rmtree(machine.studio / "llmster")
    assert machine.run("prepare").returncode == 0
    assert os.access(machine.studio / "llmster" / VERSION / "llmster", os.X_OK)


def test_another_model_takes_the_place_of_the_old_one(machine):
    machine.run("prepare")
    other = machine.folder / "other.gguf"
    other.write_bytes(b"GGUF other")
    machine.plan(model=str(other))
    machine.run("prepare")
    assert [path.name for path in (machine.studio / "models").rglob("*.gguf")] == ["other.gguf"]


def test_an_archive_of_another_version_is_refused_with_both(machine):
    machine.plan(version=NEWER)
    assert_refused(machine.run("prepare"), f"the archive holds {VERSION}, planned is {NEWER}", 78)


def test_a_release_that_is_not_there_is_refused(machine):
    (machine.root / "opt/rackserve/current/lmstudio").unlink()
    assert_refused(machine.run("prepare"), "cannot be run", 78)


def test_a_release_without_the_planned_engine_is_refused(machine):
    machine.current("cpu")
    machine.run("prepare")
    with machine.served():
        assert_refused(machine.run("load"), "llmster offers no engine for cuda")


def test_a_model_that_lms_cannot_load_is_told_though_lms_ends_with_0(machine):
    broken = machine.folder / "broken.gguf"
    broken.write_bytes(b"no model")
    machine.plan(model=str(broken))
    machine.run("prepare")
    with machine.served():
        assert_refused(
            machine.run("load"), "the model is not loaded; lms load said: Failed to load model: no GGUF file"
        )


def test_a_model_that_is_missing_is_told(machine):
    machine.plan(model=str(machine.folder / "gone.gguf"))
    machine.run("prepare")
    with machine.served():
        assert_refused(machine.run("load"), "the model is not loaded")


def test_settings_that_llmster_does_not_understand_are_found_out(machine):
    machine.run("prepare")
    file = machine.studio / "settings.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"unheardOf": True}))
    with machine.served():
        assert_refused(machine.run("load"), f"llmster has put settings of its own into {file}")


def test_a_server_that_has_exited_is_not_waited_for(machine):
    machine.run("prepare")
    done = machine.host.run(
        "lmstudio", "load", "chat", "--root", str(machine.root), HOME=str(machine.home), MAINPID="999999999"
    )
    assert_refused(done, "the server has exited")


@pytest.mark.parametrize("words", [[], ["start", "chat"], ["load"], ["load", "Chat"]])
def test_bad_arguments_are_refused(machine, words):
    done = machine.host.run("lmstudio", *(words or ["nothing"]), HOME=str(machine.home))
    assert (done.returncode, "usage: lmstudio" in done.stderr) == (64, True)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"release": 1}'])
def test_a_broken_file_of_settings_is_refused(machine, text):
    machine.host.write("etc/rackserve/lmstudio/chat.json", text)
    assert_refused(machine.run("prepare"), "run deploys/serve.py", 66)
