"""deploys/drivers.py with gpu-host.sh itself, run over a recorded host's files, where other tests write its lines."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from rackserve.domain.gpu_state import PciDevice as Seen
from rackserve.facts.gpu_host import parse_gpu_host
from rackserve.lab.pci import PciDevice, write_modules, write_tree
from tests import needs
from tests.roles.driving import drive, told
from tests.roles.gpu_box import Box
from tests.roles.gpu_expected import expected
from tests.roles.gpu_facts import candidates, gpu_host

# The script asks dpkg-query of recorded hosts.
pytestmark = needs.programs("dpkg-query")

# What the machine of the tests may not have, or has of its own: reading the recorded host's files.
STAND_INS = {
    "rpm": '#!/bin/sh\n[ "$1 $3" = "--root -qa" ] || exit 1\ncat "$2/packages"\n',
    "modinfo": '#!/bin/sh\n[ "$1 $3 $5" = "-b -k -F" ] || exit 1\ncat "$2/lib/modules/$4/$7.$6" 2>/dev/null\n',
    "df": "#!/bin/sh\necho head\necho /dev/sda1 99999 9999 90000 10% /\n",
}
STATUS = "Package: {}\nStatus: install ok installed\nArchitecture: all\nVersion: {}\nMaintainer: x\nDescription: x\n"
CELLS = [
    ("l40s", "rhel-9"),
    ("mi300x", "rhel-10"),
    ("h100-sxm-80gb", "ubuntu-24.04"),
    ("v100-32gb-sxm", "debian-12"),
    ("arc-b580", "ubuntu-24.04"),
]


class Recorded:
    """GpuHost of a box: its files below a folder, and the script over them."""

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, 0
        programs = root.parent / "programs"
        programs.mkdir()
        for name, text in STAND_INS.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.environment = {"PATH": f"{programs}:{os.environ['PATH']}"}

    def __call__(self, box: Box, command: str) -> str:
        self.asked += 1
        shell, option, script, name, _, module, *ask = shlex.split(command)
        shutil.rmtree(self.root, ignore_errors=True)
        self._record(box, module, ask)
        words = [shell, option, script, name, str(self.root), module, *ask]
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        # As other tests have it written by hand.
        assert parse_gpu_host(done.stdout.splitlines()) == parse_gpu_host(gpu_host(box, command).splitlines())
        return done.stdout

    def _record(self, box: Box, module: str, ask: list[str]) -> None:
        release = dict(zip(("ID", "VERSION_ID", "VERSION_CODENAME"), box.names, strict=True))
        self.write("etc/os-release", "".join(f'{key}="{value}"\n' for key, value in release.items()))
        self.write("proc/sys/kernel/osrelease", f"{box.kernel}\n")
        self.write("proc/sys/kernel/arch", "x86_64\n")
        self.write("proc/sys/kernel/random/boot_id", f"b-{box.boot}\n")
        for kernel in box.kernels:
            self.write(f"boot/vmlinuz-{kernel}")
        for kernel in box.headers:
            self.write(f"lib/modules/{kernel}/build/Makefile")
        for kernel, version in box.versions(module).items():
            self.write(f"lib/modules/{kernel}/{module}.filename", f"{module}.ko\n")
            self.write(f"lib/modules/{kernel}/{module}.version", f"{version}\n")
        (self.root / "var").mkdir()
        if box.family == "el":
            (self.root / "var/lib/rpm").mkdir(parents=True)
            lines = [f"package\t{name}\t{version}\tii \n" for name, version in box.packages.items()]
            self.write("packages", "".join(lines))
        else:
            self.write("var/lib/dpkg/status", "\n".join(STATUS.format(*entry) for entry in box.packages.items()))
        write_modules(self.root / "sys/module", box.loaded)
        if box.flavour:
            kind = "Open " if box.flavour == "open" else ""
            self.write(
                "proc/driver/nvidia/version", f"NVRM version: NVIDIA UNIX x86_64 {kind}Kernel Module  580.178.04"
            )
        write_tree(self.root / "sys/bus/pci", [_on_the_bus(card) for card in box.devices()])
        if box.lists:
            found = candidates(box, ask)
            self.write("candidates", "".join(f"{name}\t{version}\n" for name, version in found.items()))

    def write(self, path: str, text: str = "") -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def _on_the_bus(card: Seen) -> PciDevice:
    vendor, device = (int(word, 16) for word in card.id.split(":"))
    return PciDevice(card.address, vendor, device, driver=card.driver, bar_mib=card.bar_mib)


@pytest.mark.parametrize(("tag", "system"), CELLS, ids=str)
def test_a_recorded_host_goes_from_virgin_to_converged(tag, system, tmp_path):
    recorded = Recorded(tmp_path / "host")
    box = Box(tag, system, 2, look=recorded)
    run = drive({"host": box})
    assert run.failed == set()
    assert told(run, "host") == expected(tag, system)
    again = drive({"host": box})
    assert (again.failed, told(again, "host")) == (set(), [])
    assert recorded.asked > 6
