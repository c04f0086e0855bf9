"""The fact about GPUs, kernels and packages: over recorded hosts' trees, and over this machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from pyinfra.api.exceptions import FactProcessError

from rackserve.domain.gpu_state import GpuState
from rackserve.facts.gpu_host import GpuHost
from rackserve.lab.pci import PciDevice, write_modules, write_tree
from tests import needs

SHELLS = needs.each_of("dash", "bash", "busybox")
SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
STATUS = """Package: {name}
Status: {status}
Architecture: all
Version: {version}
Maintainer: nobody
Description: none
"""


def look(root: Path | str, module: str = "nvidia", *ask: str, shell: str = "sh") -> GpuState:
    command = GpuHost().command(module, list(ask), str(root))
    words = [shell, "sh"] if shell == "busybox" else [shell]
    done = subprocess.run(
        [*words, "-c", command],
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return GpuHost().process(done.stdout.splitlines())


def write(root: Path, path: str, content: str | bytes = "") -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An Ubuntu host with two kernels, two cards and a switch."""
    write(tmp_path, "etc/os-release", 'ID=ubuntu\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n')
    write(tmp_path, "proc/sys/kernel/osrelease", "6.8.0-9-generic\n")
    write(tmp_path, "proc/sys/kernel/arch", "x86_64\n")
    write(tmp_path, "proc/sys/kernel/random/boot_id", "b-1\n")
    for kernel in ("6.8.0-9-generic", "6.8.0-151-generic"):
        write(tmp_path, f"boot/vmlinuz-{kernel}")
        write(tmp_path, f"lib/modules/{kernel}/modules.order")
    write(tmp_path, "lib/modules/6.8.0-9-generic/build/Makefile")
    cards = [
        PciDevice("0000:1b:00.0", 0x10DE, 0x26B9, driver="nvidia", bar_mib=65536),
        PciDevice("0000:2b:00.0", 0x10DE, 0x26B9, driver="nvidia", bar_mib=65536),
        PciDevice("0000:07:00.0", 0x10DE, 0x22A3, device_class=0x068000),
        PciDevice("0000:00:1f.0", 0x8086, 0x1234, device_class=0x060100),
    ]
    write_tree(tmp_path / "sys/bus/pci", cards)
    packages = [
        ("nvidia-utils-580-server", "install ok installed", "580.1-1"),
        ("libnvidia-compute-580-server", "hold ok installed", "580.1-1"),
        ("dkms", "install ok half-configured", "3.0"),
        ("gone", "deinstall ok config-files", "1"),
    ]
    text = "\n".join(STATUS.format(name=name, status=status, version=version) for name, status, version in packages)
    write(tmp_path, "var/lib/dpkg/status", text)
    return tmp_path


@pytest.mark.parametrize("shell", SHELLS)
def test_a_recorded_host_is_read_as_it_was_in_every_shell(root, shell):
    write_modules(root / "sys/module", {"nvidia": "580.1", "nvidia_uvm": "", "snd": "1"})
    write(root, "proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.1")
    write(root, "usr/lib/x86_64-linux-gnu/libcuda.so.580.1")
    state = look(root, "nvidia", shell=shell)
    assert (state.system, state.architecture, state.boot_id) == ("ubuntu-24.04", "x86_64", "b-1")
    assert (state.kernel, state.next_kernel) == ("6.8.0-9-generic", "6.8.0-151-generic")
    assert state.kernels == ("6.8.0-9-generic", "6.8.0-151-generic")
    assert state.headers == ("6.8.0-9-generic",)
    assert [(card.address, card.id, card.bar_mib, card.driver) for card in state.devices] == [
        ("0000:07:00.0", "10de:22a3", 0, ""),
        ("0000:1b:00.0", "10de:26b9", 65536, "nvidia"),
        ("0000:2b:00.0", "10de:26b9", 65536, "nvidia"),
    ]
    assert state.loaded == {"nvidia": "580.1", "nvidia_uvm": ""}
    assert (state.flavour, state.library_version) == ("open", "580.1")
    assert state.packages == {"nvidia-utils-580-server": "580.1-1", "libnvidia-compute-580-server": "580.1-1"}
    assert state.held == {"libnvidia-compute-580-server"}
    assert state.unsettled == ("dkms",)
    assert (state.secure_boot, state.candidates, state.run_file) == (False, None, False)


def test_a_card_that_fell_off_the_bus_is_seen(root):
    dead = PciDevice("0000:1b:00.0", 0x10DE, 0x26B9)
    write_tree(root / "sys/bus/pci", [replace(dead, answers=False)])
    assert [card.answers for card in look(root).devices] == [False]


@pytest.mark.parametrize(("value", "verdict"), [(1, True), (0, False), (None, None)])
def test_secure_boot_is_read_from_the_firmware(root, value, verdict):
    (root / "sys/firmware/efi").mkdir(parents=True)
    if value is not None:
        write(root, SECURE_BOOT, bytes([6, 0, 0, 0, value]))
    assert look(root).secure_boot is verdict


def test_enterprise_linux_boots_the_kernel_that_grub_saved(root):
    write(root, "boot/grub2/grubenv", "# GRUB\nsaved_entry=0123456789abcdef-6.8.0-9-generic\n")
    assert look(root).next_kernel == "6.8.0-9-generic"
    write(root, "boot/grub2/grubenv", "# GRUB\nsaved_entry=0123456789abcdef-5.0-gone\n")
    assert look(root).next_kernel == "6.8.0-151-generic"


def test_a_runfile_installation_is_one_that_no_package_owns(root):
    write(root, "usr/bin/nvidia-uninstall")
    assert look(root).run_file
    write(root, "var/lib/dpkg/info/nvidia-utils-580-server.list", "/.\n/usr/bin/nvidia-uninstall\n")
    assert not look(root).run_file


def test_a_journal_of_dpkg_counts_as_half_done(root):
    write(root, "var/lib/dpkg/updates/0001", "x")
    assert look(root).unsettled == ("dkms", "dpkg-journal")


def test_candidates_are_those_of_both_kernels(root):
    write(root, "candidates", "linux-headers-6.8.0-9-generic\t6.8.0-9.9\n")
    assert look(root, "nvidia", "linux-headers-{release}").candidates == {"linux-headers-6.8.0-9-generic": "6.8.0-9.9"}


@pytest.mark.parametrize("shell", SHELLS)
def test_this_machine_is_read_whatever_it_is(shell):
    state = look("", "nvidia", "linux-headers-{release}", shell=shell)
    assert state.kernel == os.uname().release
    assert state.architecture == platform.machine()
    assert state.free_mib["/"] > 0
    if shutil.which("dpkg"):
        assert "dpkg" in state.packages


def test_a_hosts_words_are_no_shell(root):
    write(root, "etc/os-release", "ID=debian\nVERSION_ID=12\n")
    assert look(root, "nvidia; touch /tmp/rackserve-was-here", "$(touch /tmp/rackserve-was-here)").system == "debian-12"
    assert not Path("/tmp/rackserve-was-here").exists()


def test_no_answer_is_an_error_of_this_host_alone():
    with pytest.raises(FactProcessError, match="did not tell its kernel"):
        GpuHost().process(["system\tdebian\t12\tbookworm"])
    assert GpuHost.default().devices == ()
