from __future__ import annotations

import json
import os
import re
import runpy
import stat
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from rackserve.cli.box import box as box_command
from rackserve.cli.box import depot as depot_command
from rackserve.domain.errors import LabError
from rackserve.lab import box, vagrant
from rackserve.lab.base import make_recipe
from rackserve.lab.machine import Reach

ROOT = Path(__file__).resolve().parents[2]
BASE = make_recipe("bookworm", ["deb http://mirror.test/debian bookworm main"], Reach(files={"/etc/ca.crt": "CA"}))
RECIPE = box.box_recipe(BASE, "ssh-ed25519 AAAA somebody\n")


def test_a_box_is_the_base_with_a_kernel_and_a_boot_loader():
    argv = box.box_mmdebstrap_argv(RECIPE, Path("/t/root"), Path("/t/seed"))
    included = ",".join(word.removeprefix("--include=") for word in argv if word.startswith("--include=")).split(",")
    assert argv[0] == "mmdebstrap"
    assert {"linux-image-cloud-amd64", "extlinux", "systemd-resolved", "openssh-server", "python3"} <= set(included)
    assert argv[-3:] == ["bookworm", "/t/root", "deb http://mirror.test/debian bookworm main"]


def test_a_box_keeps_the_files_by_which_the_base_reaches_its_mirror():
    files = dict(RECIPE.base.files)
    assert files["/etc/ca.crt"] == "CA"
    assert "root=LABEL=root" in files["/boot/extlinux/extlinux.conf"]
    assert files["/etc/sudoers.d/vagrant"] == "vagrant ALL=(ALL) NOPASSWD:ALL\n"


def test_the_name_changes_with_everything_the_box_is_made_from(monkeypatch):
    names = {RECIPE.name, replace(RECIPE, public_key="ssh-ed25519 BBBB").name}
    names.add(box.box_recipe(replace(BASE, sources=("deb http://other.test bookworm main",)), RECIPE.public_key).name)
    monkeypatch.setattr(box, "PACKAGES", (*box.PACKAGES, "vim"))
    names.add(RECIPE.name)
    assert len(names) == 4
    assert all(re.fullmatch(r"rackserve/bookworm-[0-9a-f]{12}", name) for name in names)


def test_white_space_around_the_key_makes_no_other_box():
    assert box.box_recipe(BASE, " ssh-ed25519 AAAA somebody").key == RECIPE.key


def test_a_packed_box_is_what_vagrant_libvirt_reads(tmp_path):
    (tmp_path / "box.img").write_bytes(b"image")
    box._pack(tmp_path / "box.img", tmp_path / "packed")
    with tarfile.open(tmp_path / "packed") as archive:
        assert archive.getnames() == ["metadata.json", "Vagrantfile", "box.img"]
        metadata = json.load(archive.extractfile("metadata.json"))
    assert metadata == {"provider": "libvirt", "format": "qcow2", "virtual_size": 8}


def test_missing_tools_are_named_by_package(monkeypatch):
    monkeypatch.setattr(box, "require_machine", lambda: None)
    monkeypatch.setattr(box.shutil, "which", lambda program: None if program == "qemu-img" else f"/bin/{program}")
    with pytest.raises(LabError, match=r"apt-get install qemu-utils$"):
        box._require_tools()


def test_another_architecture_is_refused(monkeypatch):
    monkeypatch.setattr(box, "require_machine", lambda: None)
    monkeypatch.setattr(box.platform, "machine", lambda: "aarch64")
    with pytest.raises(LabError, match="x86_64 only, this machine is aarch64"):
        box._require_tools()


def test_the_command_prints_file_box_add_line_and_environment(monkeypatch):
    made = box.Box("rackserve/trixie-0123", Path("/c/trixie-0123.box"), Path("/c/id_ed25519"))
    monkeypatch.setattr("rackserve.cli.box.ensure_box", lambda *_: made)
    result = CliRunner().invoke(box_command, ["--suite", "trixie"], catch_exceptions=False)
    assert result.stdout.splitlines() == [
        "/c/trixie-0123.box",
        "vagrant box add --name rackserve/trixie-0123 /c/trixie-0123.box",
        "export RACKSERVE_BOX=rackserve/trixie-0123 RACKSERVE_BOX_KEY=/c/id_ed25519",
    ]


def _pretend_virsh(folder, monkeypatch, output):
    program = folder / "bin" / "virsh"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\n")
    program.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_the_tiny_model_is_offered_on_libvirts_network_until_withdrawn(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _pretend_virsh(tmp_path, monkeypatch, "<network><ip address='127.0.0.1' netmask='255.0.0.0'/></network>")
    try:
        url = CliRunner().invoke(depot_command, catch_exceptions=False).stdout.strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        assert vagrant.offer(lambda _: None) == url
        offered = vagrant.model_data()
        assert (offered["model"], offered["model_hub"]) == ("tiny-random", url)
        assert Path(offered["catalog"][0]).is_file()
    finally:
        assert vagrant.withdraw()
    assert vagrant.model_data() == {"model": "smollm2-135m-instruct"}
    assert not vagrant.withdraw()


def test_without_a_network_the_model_is_not_offered(tmp_path, monkeypatch):
    _pretend_virsh(tmp_path, monkeypatch, "")
    with pytest.raises(LabError, match="`vagrant up` makes it"):
        vagrant.gateway()


def test_the_inventory_holds_the_machines_that_were_made_and_says_what_the_vagrantfile_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(tmp_path / "dot"))
    inventory = ROOT / "inventories" / "vagrant.py"
    assert runpy.run_path(str(inventory))["vagrant"] == []
    text = (ROOT / "Vagrantfile").read_text()
    names = re.findall(r'"(\w+)"', re.search(r"^MACHINES = (.*)$", text, re.MULTILINE)[1])
    for name in names:
        (tmp_path / "dot" / "machines" / name / "libvirt").mkdir(parents=True)
        (tmp_path / "dot" / "machines" / name / "libvirt" / "id").write_text("0")
    hosts = dict(runpy.run_path(str(inventory))["vagrant"])
    assert list(hosts) == [f"@vagrant/{name}" for name in names]
    memory = int(re.search(r"^MEMORY_MIB = (\d+)$", text, re.MULTILINE)[1])
    assert {host["memory_mib"] for host in hosts.values()} == {memory}
    assert all(host["gpu_simulated"] for host in hosts.values())
