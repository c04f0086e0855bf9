"""The pure parts of the lab."""

from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from rackserve.cli.lab import lab as command
from rackserve.domain.errors import InputError, LabError, LockedError
from rackserve.lab import pci, shell
from rackserve.lab.base import Recipe, make_recipe, mmdebstrap_argv
from rackserve.lab.cgroups import hierarchies
from rackserve.lab.depot_server import byte_range
from rackserve.lab.inventory import inventory_hosts, memory_mib
from rackserve.lab.locks import locked
from rackserve.lab.machine import Reach, host_pip_configuration, mirror_settings
from rackserve.lab.names import LabNames
from rackserve.lab.network import free_number, nft_rules, taken_numbers
from rackserve.lab.nspawn import HostFolder, nspawn_argv, overlay_options
from rackserve.lab.state import LabHost, LabState, lab_names, load, save
from rackserve.lab.supervisor import boot_argv

HOST = LabHost("h1", "bookworm", "10.213.7.11", 1, "/cache/bookworm-1")
H100 = pci.PciDevice("0000:41:00.0", 0x10DE, 0x2331, driver="nvidia")
INTERFACE_NAME_LIMIT = 15
ROOT = Path(__file__).resolve().parents[2]


# Prints how many files it has open before a folder with many others is removed, and after.
REMOVES = """
import os, subprocess, sys
from pathlib import Path
import pyinfra_cli.main
from rackserve.lab import nspawn
subprocess.run(["true"])
opened = [len(os.listdir("/proc/self/fd"))]
folder = Path(sys.argv[1])
nspawn.remove_traces(folder / "lab")
print(*opened, len(os.listdir("/proc/self/fd")), folder.exists())
"""


def test_a_lab_is_removed_with_few_files_open_though_gevent_closes_folders_later(tmp_path):
    for name in range(50):
        (tmp_path / "labs" / "lab" / str(name)).mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", REMOVES, tmp_path / "labs"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    before, after, exists = done.stdout.split()
    assert (int(after) - int(before) < 10, exists) == (True, "False")


# names


def test_two_labs_share_no_name():
    one, other = LabNames("lab", Path("/a/lab")), LabNames("lab", Path("/b/lab"))
    for first, second in zip(_all_names(one), _all_names(other), strict=True):
        assert first != second


def _all_names(names: LabNames) -> list[str]:
    return [names.prefix, names.bridge, names.link(1), names.nft_table, names.netns("h1"), names.cgroup("h1")]


def test_interface_names_fit_the_kernel():
    names = LabNames("a" * 31, Path("/a"))
    assert max(len(names.bridge), len(names.link(100))) <= INTERFACE_NAME_LIMIT


@pytest.mark.parametrize("name", ["", "-x", "A", "a/b", "..", "a" * 32, "a\n"])
def test_names_that_cannot_be_used_are_refused(name):
    with pytest.raises(InputError):
        LabNames(name, Path("/a"))


def test_home_and_name_come_from_the_environment():
    names = lab_names(None, {"RACKSERVE_LAB": "mine", "RACKSERVE_LAB_HOME": "/labs"})
    assert (names.lab, names.folder) == ("mine", Path("/labs/mine"))
    assert lab_names(None, {}).folder == Path("/var/lib/rackserve/lab/lab")


# state


def test_state_survives_its_file(tmp_path):
    state = LabState(7, depot_port=8000).with_host(HOST)
    save(tmp_path, state)
    assert load(tmp_path) == state
    assert [path.name for path in tmp_path.iterdir()] == ["lab.json"]


def test_no_file_is_no_lab(tmp_path):
    assert load(tmp_path / "nowhere") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"number": 1, "hosts": [{}], "depot_port": 0}'])
def test_a_broken_file_says_how_to_go_on(tmp_path, text):
    (tmp_path / "lab.json").write_text(text)
    with pytest.raises(LabError, match="rackserve lab down"):
        load(tmp_path)


def test_an_unknown_host_is_answered_with_the_known_ones():
    with pytest.raises(LabError, match=r"no host 'h2' \(it has h1\)"):
        LabState(7, (HOST,)).host("h2")


def test_inventory_is_empty_without_a_lab(tmp_path, monkeypatch):
    monkeypatch.setenv("RACKSERVE_LAB_HOME", str(tmp_path))
    assert inventory_hosts() == []
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "lab.json").write_text("{")
    assert inventory_hosts() == []
    monkeypatch.setenv("RACKSERVE_LAB", "NOT A NAME")
    assert inventory_hosts() == []


def test_memory_is_the_machines():
    assert memory_mib("MemFree: 1 kB\nMemTotal:       24683520 kB\n") == 24105
    assert memory_mib("") == 0


# base


def test_the_recipe_key_changes_with_what_goes_in():
    recipe = make_recipe("bookworm", ["deb http://m.test bookworm main"], Reach())
    assert recipe.key == make_recipe("bookworm", ["deb http://m.test bookworm main"], Reach()).key
    others = [
        make_recipe("bookworm", ["deb http://other.test bookworm main"], Reach()),
        make_recipe("bookworm", recipe.sources, Reach(apt_settings=('Acquire::Retries "3";',))),
        make_recipe("bookworm", recipe.sources, Reach(files={"/etc/pip.conf": "x"})),
        replace(recipe, suite="trixie"),
    ]
    assert len({recipe.key, *(other.key for other in others)}) == 5


@pytest.mark.parametrize(("suite", "lenient"), [("bookworm", False), ("trixie", False), ("forky", True)])
def test_only_the_unreleased_suite_takes_a_stale_index(suite, lenient):
    recipe = make_recipe(suite, ["deb http://m.test x main"], Reach())
    assert any("Check-Valid-Until" in setting for setting in recipe.build_settings) is lenient
    assert ("Check-Valid-Until" in dict(recipe.files)["/etc/apt/apt.conf.d/90lab"]) is lenient


def test_mmdebstrap_gets_sources_last_and_a_quoted_seed():
    recipe = Recipe("trixie", ("deb http://m.test trixie main",), ("A;",), ())
    argv = mmdebstrap_argv(recipe, Path("/t"), Path("/se ed"))
    assert argv[-3:] == ["trixie", "/t", "deb http://m.test trixie main"]
    assert "--aptopt=A;" in argv
    assert any("'/se ed'/." in argument for argument in argv)


# machine


def test_apt_settings_that_decide_the_way_to_a_mirror_are_taken():
    dump = (
        'Acquire "";\nAcquire::http "";\nAcquire::http::Proxy "http://proxy.test:3128";\nAcquire::Retries "3";\n'
        'Acquire::Check-Valid-Until "false";\nDPkg::Post-Invoke:: "rm x";\nAcquire::https::CaInfo "/ca";\n'
    )
    assert mirror_settings(dump) == (
        'Acquire::http::Proxy "http://proxy.test:3128";',
        'Acquire::Retries "3";',
        'Acquire::https::CaInfo "/ca";',
    )


def test_pip_settings_lose_paths_of_this_machine():
    texts = [
        "[global]\nindex-url = https://index.test/simple\ncert = /here.pem\n",
        "[global]\nextra-index-url =\n  file:///opt/simple\n  https://more.test/simple\nfind-links = /opt/wheels\n",
    ]
    text = host_pip_configuration(texts, own_authority=True)
    assert "index-url = https://index.test/simple" in text
    assert "extra-index-url = https://more.test/simple" in text
    assert "cert = /etc/ssl/certs/ca-certificates.crt" in text
    assert "/opt" not in text
    assert "here" not in text
    assert host_pip_configuration(["[install]\nx = 1\n"], own_authority=False) == ""


# network


def test_the_first_free_number_is_taken_and_wraps_around():
    start = free_number("lab", set())
    assert free_number("lab", {start}) == start % 254 + 1
    assert free_number("lab", set(range(1, 255)) - {3}) == 3
    with pytest.raises(LabError, match="take a lab down"):
        free_number("lab", set(range(1, 255)))


def test_taken_numbers_are_read_from_routes():
    routes = "default via 10.0.0.1 dev eth0\n10.213.7.0/24 dev br\nlocal 10.213.9.1 dev br2\n110.213.8.0/24 dev x\n"
    assert taken_numbers(routes) == {7, 9}


def test_nat_rules_can_be_loaded_twice():
    rules = nft_rules(LabNames("lab", Path("/a")), LabState(7))
    assert rules.index("delete table") > rules.index("table ip")
    assert 'ip saddr 10.213.7.0/24 oifname != "rslab-' in rules


# nspawn


def test_nspawn_has_what_hardening_inside_needs():
    argv = nspawn_argv(HOST, Path("/root fs"), "ns-h1", ["--bind-ro=/x:/y"])
    assert "--directory=/root fs" in argv
    assert "--network-namespace-path=/run/netns/ns-h1" in argv
    assert "--capability=CAP_NET_ADMIN,CAP_BPF,CAP_PERFMON" in argv
    assert "--system-call-filter=bpf" in argv
    assert argv[-1] == "--bind-ro=/x:/y"


def test_overlay_refuses_a_path_it_cannot_take(tmp_path):
    folder = HostFolder(tmp_path / "h1")
    assert overlay_options(HOST, folder).startswith("lowerdir=/cache/bookworm-1,upperdir=")
    with pytest.raises(LabError, match="comma"):
        overlay_options(HOST, HostFolder(tmp_path / "a,b"))


def test_each_boot_gets_a_clock_that_starts_at_zero():
    argv = boot_argv({"box_cgroups": ["/cg/a", "/cg/b"], "nspawn": ["systemd-nspawn", "x"]}, 12.9, 10.2)
    assert "--boottime=-12" in argv
    assert "--monotonic=-10" in argv
    assert argv[-5:] == ["/cg/a", "/cg/b", "--", "systemd-nspawn", "x"]


def test_cgroup_hierarchies_of_both_kinds_of_machine(tmp_path):
    with pytest.raises(LabError, match="cgroup 2"):
        hierarchies(tmp_path)
    for name in ("unified", "systemd"):
        (tmp_path / name).mkdir()
    (tmp_path / "unified/cgroup.controllers").touch()
    assert hierarchies(tmp_path) == [tmp_path / "unified", tmp_path / "systemd"]
    (tmp_path / "cgroup.controllers").touch()
    assert hierarchies(tmp_path) == [tmp_path]


# pci


def test_configuration_space_holds_the_identity():
    space = pci.configuration_space(H100)
    assert len(space) == 256
    assert struct.unpack_from("<HH", space) == (0x10DE, 0x2331)
    assert space[9:12] == b"\x00\x02\x03"


def test_attributes_read_as_sysfs_does():
    files = pci.attributes(H100)
    assert files["class"] == "0x030200"
    assert files["modalias"] == "pci:v000010DEd00002331sv000010DEsd00000001bc03sc02i00"
    assert files["uevent"].splitlines()[0] == "DRIVER=nvidia"
    assert "DRIVER" not in pci.attributes(replace(H100, driver=""))["uevent"]


def test_a_tree_shows_exactly_the_devices_given(tmp_path):
    second = pci.PciDevice("0000:43:00.0", 0x1002, 0x74A1, 0x120000)
    pci.write_tree(tmp_path, [H100, second])
    assert (tmp_path / "devices/0000:41:00.0/driver").resolve() == tmp_path / "drivers/nvidia"
    pci.write_tree(tmp_path, [replace(second, device=0x74A5)])
    assert [path.name for path in (tmp_path / "devices").iterdir()] == ["0000:43:00.0"]
    assert (tmp_path / "devices/0000:43:00.0/device").read_text() == "0x74a5\n"
    pci.write_tree(tmp_path, [])
    assert list((tmp_path / "devices").iterdir()) == []


@pytest.mark.parametrize("address", ["41:00.0", "0000:41:00.8", "0000:41:00.0/..", "0000:4G:00.0"])
def test_an_address_sysfs_would_not_have_is_refused(address):
    with pytest.raises(InputError, match=r"0000:41:00\.0"):
        pci.PciDevice(address, 1, 1)


def test_colons_are_protected_from_nspawn(tmp_path):
    assert pci.bind_arguments(Path("/a:b"), tmp_path) == [f"--bind-ro=/a\\:b:{tmp_path}"]
    assert pci.bind_arguments(Path("/a"), tmp_path / "absent") == []


# depot


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-3", (0, 3)),
        ("bytes=4-", (4, 9)),
        ("bytes=-3", (7, 9)),
        ("bytes=-99", (0, 9)),
        ("bytes=2-99", (2, 9)),
        ("bytes=0-1,3-4", None),
        ("bytes=-", None),
        ("items=0-1", None),
    ],
)
def test_byte_ranges(header, expected):
    assert byte_range(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=5-3", "bytes=-0"])
def test_byte_ranges_outside_the_file(header):
    with pytest.raises(ValueError, match="bytes"):
        byte_range(header, 10)


# the machine and the command line


def test_without_root_one_sentence_says_so(monkeypatch):
    monkeypatch.setattr(shell.os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="run it with sudo"):
        shell.require_machine()


def test_missing_tools_are_named_as_packages(monkeypatch):
    monkeypatch.setattr(shell.os, "geteuid", lambda: 0)
    monkeypatch.setattr(shell.shutil, "which", lambda name: None if name in ("mmdebstrap", "nft") else name)
    with pytest.raises(LabError, match=r"apt-get install .*mmdebstrap.*nftables"):
        shell.require_machine()


def test_a_failing_tool_is_quoted():
    with pytest.raises(LabError, match="`sh -c echo why >&2; false` failed: why"):
        shell.run(["sh", "-c", "echo why >&2; false"])


def test_a_lock_is_held_once(tmp_path, monkeypatch):
    monkeypatch.setattr("rackserve.lab.locks.LOCK_FOLDER", tmp_path)
    with locked("x", wait=False), pytest.raises(LockedError), locked("x", wait=False):
        pass
    with locked("x", wait=False):
        pass


def test_status_without_a_lab(tmp_path, monkeypatch):
    monkeypatch.setenv("RACKSERVE_LAB_HOME", str(tmp_path))
    assert "there is no lab" in CliRunner().invoke(command, ["status"]).output
    assert '"exists": false' in CliRunner().invoke(command, ["status", "--json"]).output
