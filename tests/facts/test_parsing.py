"""Facts: what hosts printed to what we know of them. Captured on a Debian forky lab host that serves."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyinfra.api.exceptions import FactProcessError

from rackserve.facts.existing import Existing
from rackserve.facts.node import NodeFact, parse_node
from rackserve.facts.packages import parse_dpkg
from rackserve.facts.paths import PathState, parse_paths
from rackserve.facts.podman import Podman, parse_podman
from rackserve.facts.releases import parse_releases
from rackserve.facts.services import Installed, parse_services
from rackserve.facts.units import ABSENT, parse_unit

NODE = """id=debian
codename=forky
arch=x86_64
glibc=glibc 2.43
mem_kib=24684084
init=systemd
flags= fpu vme de pse tsc sse4_2 avx f16c avx2 avx512f""".splitlines()
# Written by hand after a server board: its management chip, an H100, a network card, an MI300X.
PCI = [
    "pci=0x1a03 0x2000 0x030000",
    "pci=0x10de 0x2331 0x030200",
    "pci=0x15b3 0x1021 0x020000",
    "pci=0x1002 0x74a1 0x120000",
]
UNIT = """ActiveState=active
UnitFileState=enabled
NeedDaemonReload=no
MainPID=1018
RACKSERVE_DIGEST=9e7757f10fc47d3d2b3673fc02740e7b6668da96dced29cb5a73a765ff846f8c
exe=/usr/bin/llama-server
program=/usr/bin/llama-server
key=current
watch=current""".splitlines()
DIGEST = "9e7757f10fc47d3d2b3673fc02740e7b6668da96dced29cb5a73a765ff846f8c"


# node


def test_a_host_is_read():
    node = parse_node(NODE)
    assert (node.distribution, node.codename, node.architecture, node.glibc) == ("debian", "forky", "x86_64", "2.43")
    assert (node.memory_mib, node.systemd, node.pci_gpus) == (24105, True, ())
    assert {"avx2", "fpu"} <= node.cpu_flags


@pytest.mark.parametrize(
    ("said", "version"),
    [("Python 3.11.2", "3.11"), ("Python 3.14.0rc2+", "3.14"), ("Python 3.9.25", "3.9"), ("", ""), ("sh: no", "")],
)
def test_the_systems_own_python_is_read(said, version):
    assert parse_node([*NODE, f"python={said}"]).python == version


def test_a_host_without_python_has_none():
    assert parse_node(NODE).python == ""


def test_the_systems_own_python_is_asked_for():
    # This machine's own, which need not be the one that runs the tests.
    program = ["/usr/bin/python3", "-c", "import sys; print(sys.version_info[1])"]
    own = subprocess.run(program, capture_output=True, check=True)
    said = subprocess.run(["sh", "-c", NodeFact().command()], capture_output=True, text=True, check=True).stdout
    assert parse_node(said.splitlines()).python == f"3.{int(own.stdout)}"


def test_gpus_are_display_controllers_and_accelerators_by_id():
    assert parse_node([*NODE, *PCI]).pci_gpus == ("1002:74a1", "10de:2331", "1a03:2000")


def test_quoted_values_of_os_release_are_read():
    assert parse_node(['id="ol"', "arch=x86_64", "mem_kib=1024", "codename="]).distribution == "ol"


def test_another_c_library_and_another_init_are_told():
    node = parse_node(["id=alpine", "codename=", "arch=x86_64", "glibc=", "mem_kib=2048", "init=init", "flags="])
    assert (node.glibc, node.systemd, node.cpu_flags) == ("0", False, frozenset())


@pytest.mark.parametrize("missing", ["id", "arch", "mem_kib"])
def test_what_a_host_has_to_tell_is_named_when_it_does_not(missing):
    with pytest.raises(ValueError, match=missing):
        parse_node([line for line in NODE if not line.startswith(f"{missing}=")])


def test_pyinfra_is_given_its_own_error_so_that_only_this_host_fails():
    with pytest.raises(FactProcessError, match="mem_kib"):
        NodeFact().process(["id=debian", "arch=x86_64"])


# packages


def test_installed_packages_are_those_that_are_installed():
    state = parse_dpkg(["curl|ii ", "held|hi ", "removed|rc ", "never|un ", "libc6|ii "])
    assert (state.installed, state.unsettled) == ({"curl", "held", "libc6"}, ())


@pytest.mark.parametrize("status", ["iU ", "iF ", "iH ", "it ", "iW ", "iiR", "iU", "rH "])
def test_what_dpkg_left_half_done_is_unsettled_and_not_installed(status):
    state = parse_dpkg([f"curl|{status}", "libc6|ii "])
    assert (state.installed, state.unsettled) == ({"libc6"}, ("curl",))


def test_an_update_journal_is_unsettled():
    assert parse_dpkg(["curl|ii ", "dpkg-journal|xx "]).unsettled == ("dpkg-journal",)


@pytest.mark.parametrize("status", ["ri ", "pi "])
def test_a_package_marked_for_removal_is_still_there_and_nothing_is_half_done(status):
    # Left by `dpkg --set-selections`; no `dpkg --configure -a` will ever change it, so each run would try again.
    state = parse_dpkg([f"curl|{status}"])
    assert (state.installed, state.unsettled) == ({"curl"}, ())


# paths


def test_files_are_read_with_spaces_in_their_names():
    lines = [
        "644 root root 2010 fb5fb3762790 /etc/systemd/system/rackserve@.service",
        "600 root root 47 - /srv/a file",
        "sh: 1: noise",
    ]
    assert parse_paths(lines) == {
        "/etc/systemd/system/rackserve@.service": PathState("644", "root", "root", 2010, "fb5fb3762790"),
        "/srv/a file": PathState("600", "root", "root", 47, "-"),
    }


# releases and services


def test_releases_are_read():
    state = parse_releases(["complete=llama.cpp-llama.cpp-tools", "complete=llama.cpp-f6d2", "current=llama.cpp-f6d2"])
    assert state.complete == {"llama.cpp-llama.cpp-tools", "llama.cpp-f6d2"}
    assert state.current == "llama.cpp-f6d2"


def test_services_are_read_from_our_drop_in_folders_alone():
    lines = [
        "/etc/systemd/system/rackserve@small-one.service.d",
        "/etc/systemd/system/rackserve@chat.service.d",
        "/etc/systemd/system/other@x.service.d",
        "/etc/systemd/system/rackserve@../../x.service.d",
        "",
    ]
    assert parse_services(lines) == Installed(("chat", "small-one"))


def test_services_in_containers_are_read_from_their_files_and_each_once():
    lines = [
        "/etc/systemd/system/rackserve@chat.service.d",
        "/etc/containers/systemd/rackserve@chat.container",
        "/etc/containers/systemd/rackserve@alone.container",
        "/etc/containers/systemd/other@x.container",
        "/etc/systemd/system/rackserve@y.container",
    ]
    assert parse_services(lines) == Installed(("alone", "chat"))


def test_a_service_that_only_ever_had_a_check_is_one_too():
    lines = [
        "/etc/systemd/system/rackserve@chat.service.d",
        "/etc/systemd/system/rackserve-check@chat.service.d",
        "/etc/systemd/system/rackserve-check@alone.service.d",
        "/etc/systemd/system/rackserve-check@.service",
        "/etc/systemd/system/rackserve-health@x.service.d",
    ]
    found = parse_services(lines)
    assert found == Installed(served=("chat",), checked=("alone", "chat"))
    assert found.all == ("alone", "chat")


def test_podman_tells_programs_images_and_which_of_them_are_ours():
    lines = ["command=crun", "command=podman", "image=localhost/a@sha256:1", "own=localhost/b@sha256:2", "own=", "x"]
    state = parse_podman([*lines, "own=localhost/a@sha256:1"])
    assert state.commands == {"crun", "podman"}
    assert state.images == {"localhost/a@sha256:1"}
    assert state.own == ("localhost/b@sha256:2", "localhost/a@sha256:1")
    assert parse_podman([]) == Podman.default()


# units


def test_a_unit_that_serves_its_plan_is_recognized():
    assert parse_unit(UNIT).runs(DIGEST)
    assert not parse_unit(UNIT).runs("0" * 64)


@pytest.mark.parametrize(
    ("found", "instead"),
    [
        ("ActiveState=active", "ActiveState=activating"),
        ("ActiveState=active", "ActiveState=failed"),
        ("UnitFileState=enabled", "UnitFileState=disabled"),
        ("NeedDaemonReload=no", "NeedDaemonReload=yes"),
        ("exe=/usr/bin/llama-server", "exe=/usr/bin/llama-server (deleted)"),
        ("exe=/usr/bin/llama-server", "exe="),
        ("program=/usr/bin/llama-server", "program="),
        ("program=/usr/bin/llama-server", "program=/opt/rackserve/releases/x/llama-server"),
        ("key=current", ""),
    ],
)
def test_one_difference_is_enough_for_a_restart(found, instead):
    assert found in UNIT
    assert not parse_unit([instead if line == found else line for line in UNIT]).runs(DIGEST)


def test_a_containers_unit_is_enabled_by_its_file():
    assert parse_unit(["UnitFileState=generated" if "UnitFileState" in line else line for line in UNIT]).runs(DIGEST)


def test_a_health_check_that_is_not_as_it_should_be_is_told_beside_the_service():
    found = parse_unit([line for line in UNIT if "watch" not in line])
    assert parse_unit(UNIT).watched
    assert (found.runs(DIGEST), found.watched) == (True, False)


def test_a_unit_that_is_not_there_is_absent():
    assert parse_unit(["ActiveState=inactive", "UnitFileState=", "NeedDaemonReload=no", "MainPID=0"]) == ABSENT
    assert parse_unit([]) == ABSENT


# anything at all

lines_of_anything = st.lists(
    st.text(max_size=30)
    | st.builds("{}={}".format, st.sampled_from(["pci", "id", "arch", "mem_kib", "complete", "exe"]), st.text())
    | st.builds(" ".join, st.lists(st.sampled_from(["644", "root", "12", "²", "-", "/x"]), min_size=6, max_size=7))
    | st.builds("{}|{}".format, st.text(max_size=5), st.text(max_size=4)),
    max_size=8,
)


@given(lines_of_anything)
@example(["644 root root ² - /x"])
def test_no_output_of_a_host_makes_a_parser_raise(lines):
    # An exception here would end the run for all hosts.
    parsers = (parse_dpkg, parse_releases, parse_services, parse_podman, parse_unit, Existing().process, parse_paths)
    # What it makes of them depends on nothing else.
    assert [parse(lines) for parse in parsers] == [parse(list(lines)) for parse in parsers]


@given(lines_of_anything | st.lists(st.sampled_from([*NODE, *PCI, "pci=", "pci=0x1", "mem_kib=x"]), max_size=12))
def test_a_host_is_read_or_refused_with_a_value_error(lines):
    try:
        node = parse_node(lines)
    except ValueError:
        return
    assert node.distribution
    assert node.memory_mib >= 0
