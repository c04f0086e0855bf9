"""The podman fallback as far as it needs no podman: commands, images, records, and who carries a demo."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from rackserve.domain.errors import InputError, LabError
from rackserve.lab import demo, podman, podman_image
from rackserve.lab.base import make_recipe
from rackserve.lab.inventory import inventory_hosts
from rackserve.lab.lab import Lab
from rackserve.lab.login import Login
from rackserve.lab.machine import Reach
from rackserve.lab.names import LabNames
from rackserve.lab.state import NSPAWN, PODMAN, LabHost, LabState, lab_names, load, save

NAMES = LabNames("demo", Path("/labs/demo"))
HOST = LabHost("h1", "bookworm", "127.0.0.1", 1, "localhost/rackserve-lab-bookworm:1", ssh_port=40022, port=8005)
STATE = LabState(0, (HOST,), podman.DEPOT_PORT, PODMAN)
RECIPE = make_recipe("bookworm", ["deb http://m.test bookworm main"], Reach(files={"/etc/pip.conf": "x"}))
REFUSED = (
    "\x1b[!p\x1b]104\x1b\\\x1b[?7hsystemd 260 running in system mode\r\n"
    "\x1b[0;1;31m  systemd.unified_cgroup_hierarchy=0\x1b[0m\r\n"
    "[\x1b[0;1;31m!!!!!!\x1b[0m] Detected unsupported legacy cgroup hierarchy, refusing execution.\r\n"
    "\x1b[0;1;31mExiting PID 1...\x1b[0m\r\n"
)

# the container


def test_a_container_has_default_privileges_and_ports_on_loopback_only():
    argv = podman.create_argv(NAMES, HOST, [])
    assert argv[:2] == ["podman", "create"]
    assert argv[-2:] == [HOST.base, "/sbin/init"]
    assert not [word for word in argv if "privileged" in word or "cap-add" in word or "seccomp" in word]
    published = [word.partition("=")[2] for word in argv if word.startswith("--publish")]
    assert published == ["127.0.0.1:40022:22", "127.0.0.1:8005:8005"]


def test_the_runtime_is_an_option_of_podman_itself():
    argv = podman.create_argv(NAMES, HOST, ["--runtime", "runc", "--ulimit=nofile=1:1"])
    assert argv[:5] == ["podman", "--runtime", "runc", "create", "--ulimit=nofile=1:1"]


def test_the_plain_way_is_tried_first(monkeypatch):
    monkeypatch.setattr(podman.shutil, "which", lambda _: None)
    plain, limited = podman.variants()
    assert plain == []
    assert [word.split("=")[:2] for word in limited] == [["--ulimit", "nofile"], ["--ulimit", "nproc"]]
    monkeypatch.setattr(podman.shutil, "which", lambda name: name)
    assert ["--runtime", "runc"] in list(podman.variants())


@pytest.mark.parametrize(("own", "expected"), [(512, "512:512"), (resource.RLIM_INFINITY, "20000:20000")])
def test_limits_are_never_above_the_machines(monkeypatch, own, expected):
    monkeypatch.setattr(podman.resource, "getrlimit", lambda _: (own, own))
    assert podman._limits()[0] == f"--ulimit=nofile={expected}"


def test_the_end_of_a_console_is_readable():
    words = podman.readable_end(REFUSED)
    assert words.split(" / ")[-2:] == [
        "systemd.unified_cgroup_hierarchy=0",
        "[!!!!!!] Detected unsupported legacy cgroup hierarchy, refusing execution.",
    ]
    assert words.isprintable()
    assert podman.readable_end("\x1b[0m\n") == "its console is empty"


def test_a_port_that_is_taken_is_not_chosen():
    with podman.socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert podman._free_port(port) not in (0, port)
    assert podman._free_port(port) == port


# the image


def test_an_image_is_built_from_a_short_name():
    text = podman_image.containerfile(RECIPE)
    assert text.startswith("FROM debian:bookworm\n")
    assert "openssh-server" in text
    assert "rm -f /etc/apt/sources.list.d/debian.sources" in text
    assert "debian.sources" not in podman_image.containerfile(replace(RECIPE, sources=()))


def test_another_recipe_is_another_image():
    names = {podman_image.image_name(recipe) for recipe in (RECIPE, replace(RECIPE, files=()))}
    assert len(names) == 2
    assert all(name.startswith("localhost/rackserve-lab-bookworm:") for name in names)


# what a lab remembers


def test_a_record_of_containers_survives_its_file(tmp_path):
    save(tmp_path, STATE)
    assert load(tmp_path) == STATE


def test_a_record_from_before_is_of_nspawn(tmp_path):
    host = {"name": "h1", "suite": "bookworm", "address": "10.213.7.11", "index": 1, "base": "/b"}
    (tmp_path / "lab.json").write_text(json.dumps({"number": 7, "hosts": [host], "depot_port": 1}))
    state = load(tmp_path)
    assert state is not None
    assert (state.backend, state.host("h1").ssh_port, state.listen("h1")) == (NSPAWN, 22, "10.213.7.11")


def test_a_users_labs_lie_with_the_user(monkeypatch):
    monkeypatch.setattr("rackserve.lab.state.os.geteuid", lambda: 1000)
    assert lab_names("x", {"HOME": "/home/me"}).folder == Path("/home/me/.local/state/rackserve/lab/x")
    assert lab_names("x", {"HOME": "/h", "XDG_STATE_HOME": "/s"}).folder == Path("/s/rackserve/lab/x")
    monkeypatch.setattr("rackserve.lab.state.os.geteuid", lambda: 0)
    assert lab_names("x", {"HOME": "/root"}).folder == Path("/var/lib/rackserve/lab/x")


def test_inventory_reaches_the_published_ports(tmp_path, monkeypatch):
    monkeypatch.setenv("RACKSERVE_LAB_HOME", str(tmp_path))
    save(tmp_path / "lab", STATE)
    [(name, data)] = inventory_hosts()
    assert (name, data["ssh_hostname"], data["ssh_port"]) == ("h1", "127.0.0.1", 40022)
    assert (data["lab_listen"], data["lab_port"], data["lab_network"]) == ("0.0.0.0", 8005, "0.0.0.0/0")  # noqa: S104
    assert data["lab_depot_url"] == "http://127.0.0.1:8000"


def test_ssh_goes_to_the_published_port():
    argv = Login(Path("/labs/demo")).argv(HOST)
    assert argv[argv.index("-p") + 1] == "40022"
    assert argv[-1] == "root@127.0.0.1"


def test_containers_and_nspawn_hosts_do_not_mix(tmp_path, monkeypatch):
    monkeypatch.setenv("RACKSERVE_LAB_HOME", str(tmp_path))
    save(tmp_path / "one", STATE)
    with pytest.raises(LabError, match="made of podman containers: `rackserve lab down` first"):
        Lab("one").up()
    save(tmp_path / "two", LabState(7))
    lab = Lab("two")
    with pytest.raises(LabError, match="made of nspawn hosts: `rackserve lab down` first"):
        podman.up(lab.names, lab.login, "bookworm", print)


# who carries a demo


@pytest.fixture
def said(monkeypatch):
    words: list[str] = []
    monkeypatch.setattr(demo.podman, "missing", lambda: "")
    monkeypatch.setattr(demo, "require_machine", lambda: None)
    return words


def _no_nspawn() -> None:
    raise LabError("needs root: run it with sudo")


def test_nspawn_comes_first(said):
    assert demo._backend(said.append, {}) == NSPAWN
    assert demo._backend(said.append, {"RACKSERVE_LAB_BACKEND": "podman"}) == PODMAN
    assert said == []


def test_podman_steps_in_and_says_why(said, monkeypatch):
    monkeypatch.setattr(demo, "require_machine", _no_nspawn)
    assert demo._backend(said.append, {}) == PODMAN
    assert said == ["a podman container instead of a lab host: needs root: run it with sudo"]
    with pytest.raises(LabError, match=r"run it with sudo$"):
        demo._backend(said.append, {"RACKSERVE_LAB_BACKEND": "nspawn"})


def test_without_either_one_sentence_says_what_to_install(said, monkeypatch):
    monkeypatch.setattr(demo, "require_machine", _no_nspawn)
    monkeypatch.setattr(demo.podman, "missing", lambda: "podman is not installed")
    with pytest.raises(LabError, match=r"sudo; or, .* podman .*apt-get install podman.*docs/vagrant\.md") as caught:
        demo._backend(said.append, {})
    assert "\n" not in str(caught.value)


def test_what_podman_needs_is_named(monkeypatch):
    monkeypatch.setattr(podman.shutil, "which", lambda name: None if name == "podman" else name)
    assert podman.missing() == f"not installed: podman ({podman.INSTALL})"
    monkeypatch.setattr(podman.shutil, "which", lambda name: name)
    assert podman.missing() == ""


def test_a_backend_that_is_none_is_refused(said):
    with pytest.raises(InputError, match="nspawn or podman"):
        demo._backend(said.append, {"RACKSERVE_LAB_BACKEND": "docker"})


@pytest.fixture
def carried(monkeypatch):
    """Suites that podman carries; the lab is not touched."""
    suites: set[str] = set()

    def container(_lab: Lab, suite: str, _say: object) -> None:
        if suite not in suites:
            raise LabError(f"{suite} refuses")

    monkeypatch.setattr(demo, "_container", container)
    monkeypatch.setattr(demo, "_runtime_options", lambda suite: ("--data", suite))
    monkeypatch.setattr(Lab, "down", lambda _: True)
    return suites


def test_the_newer_suite_is_taken_where_it_boots(carried, said):
    carried |= {"forky", "bookworm"}
    assert demo._podman_host(Lab("demo"), said.append) == ()


def test_the_older_suite_steps_in(carried, said):
    carried.add("bookworm")
    assert demo._podman_host(Lab("demo"), said.append) == ("--data", "bookworm")
    assert said == ["not with Debian forky: forky refuses"]


def test_where_no_suite_boots_the_way_on_is_told(carried, said):
    assert carried == set()
    with pytest.raises(LabError, match=r"bookworm refuses; or use virtual machines: docs/vagrant\.md"):
        demo._podman_host(Lab("demo"), said.append)


def test_an_earlier_build_is_taken_before_the_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "builds_folder", lambda: tmp_path)
    monkeypatch.setattr(demo.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(demo.model, "hub_answers", lambda _: False)
    with pytest.raises(LabError, match="no llama-server package"):
        demo._runtime_options("bookworm")
    monkeypatch.setattr(demo.model, "hub_answers", lambda _: True)
    assert demo._runtime_options("bookworm") == ()
    (tmp_path / "llama.cpp-llama-cpp-python-1-bookworm-x86_64.tar.gz").touch()
    assert demo._runtime_options("bookworm") == ("--data", "llamacpp_install=build")
