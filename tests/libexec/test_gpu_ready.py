"""gpu-ready, run as a program over hosts' trees in every state that a GPU host can be in."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rackserve.lab.pci import PciDevice, write_modules, write_tree
from rackserve.rendering.drivers import expected_text
from tests.planning.driver_pairs import CATALOG, planned

PROGRAM = Path(__file__).resolve().parents[2] / "templates" / "libexec" / "gpu-ready"
VERSION = "580.178.04"
FABRIC = """
GPU 00000000:1B:00.0
    Fabric
        State                             : {state}
        Status                            : {status}
"""


class Tree:
    """A host's files below a folder, all as its plan wants them until a test changes something."""

    def __init__(self, root: Path, tag: str, system: str, count: int = 2, **settings: Any) -> None:
        self.root = root
        self.plan = planned(tag, system, gpu_count=count, **settings)
        vendor, device = (int(part, 16) for part in self.plan.gpu_ids[0].split(":"))
        module = self.plan.modules[0]
        self.cards = [
            PciDevice(f"0000:{0x1B + 0x10 * n:02x}:00.0", vendor, device, driver=module, render=f"renderD{128 + n}")
            for n in range(count)
        ]
        self.write("etc/rackserve/gpus.json", expected_text(self.plan))
        self.show()
        write_modules(root / "sys/module", dict.fromkeys(self.plan.modules, VERSION))
        self.write(f"modinfo/{module}", VERSION)
        if self.plan.vendor == "nvidia":
            self._nvidia()
        else:
            for card in self.cards:
                self.write(f"dev/dri/{card.render}")
                self.write(f"sys/bus/pci/devices/{card.address}/mem_info_vram_total", str(self.plan.vram_mib << 20))
            self.write("dev/kfd")

    def _nvidia(self) -> None:
        words = " Open Kernel Module" if self.plan.flavour == "open" else ""
        self.write("proc/driver/nvidia/version", f"NVRM version: NVIDIA UNIX{words} for x86_64  {VERSION}")
        for number, card in enumerate(self.cards):
            self.told(card, number)
            self.write(f"dev/nvidia{number}")
        self.write("dev/nvidiactl")
        self.write("dev/nvidia-uvm")
        self.write(f"usr/lib/x86_64-linux-gnu/libcuda.so.{VERSION}")

    def told(self, card: PciDevice, minor: int | None) -> None:
        """What NVIDIA's driver tells of a card. Source: nv-procfs.c of the open kernel module."""
        number = self.cards.index(card)
        lines = ["Model: \t\t X", f"GPU UUID: \t GPU-0000000{number}-1111-2222-3333-444444444444"]
        lines += [] if minor is None else [f"Device Minor: \t {minor}"]
        self.write(f"proc/driver/nvidia/gpus/{card.address}/information", "\n".join(lines) + "\n")

    def show(self) -> None:
        write_tree(self.root / "sys/bus/pci", self.cards)

    def write(self, path: str, text: str = "") -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def remove(self, path: str) -> None:
        (self.root / path).unlink()

    def prepare(self) -> tuple[int, list[str]]:
        """As gpu-ready.service runs it."""
        done = subprocess.run(
            [PROGRAM, "--root", self.root, "--wait", "0"], capture_output=True, text=True, check=False
        )
        return done.returncode, done.stderr.splitlines()

    @property
    def published(self) -> Any:
        file = self.root / "run/rackserve/gpus.json"
        return json.loads(file.read_text()) if file.exists() else None

    @property
    def links(self) -> dict[str, str]:
        return {path.name: str(path.readlink()) for path in (self.root / "dev/rackserve").glob("*")}

    def check(self) -> tuple[int, list[str], dict[str, Any]]:
        done = subprocess.run(
            [PROGRAM, "--check", "--json", "--root", self.root], capture_output=True, text=True, check=False
        )
        answer = json.loads(done.stdout) if done.stdout else {}
        lines = done.stderr.splitlines()
        assert answer.get("problems", lines) == lines
        return done.returncode, lines, answer


@pytest.fixture
def nvidia(tmp_path: Path) -> Tree:
    return Tree(tmp_path, "l40s", "debian-12")


@pytest.mark.parametrize(
    ("tag", "system"),
    [("l40s", "debian-12"), ("v100-32gb-sxm", "debian-12"), ("mi300x", "ubuntu-24.04"), ("arc-b580", "ubuntu-24.04")],
)
def test_a_host_as_planned_is_ready(tmp_path, tag, system):
    assert tag in CATALOG.gpus
    tree = Tree(tmp_path, tag, system)
    code, lines, answer = tree.check()
    assert (code, lines) == (0, [])
    assert [gpu["address"] for gpu in answer["gpus"]] == [card.address for card in tree.cards]


def test_uuids_are_told(nvidia):
    assert nvidia.check()[2]["gpus"][1]["uuid"] == "GPU-00000001-1111-2222-3333-444444444444"


def test_a_missing_card_is_counted(nvidia):
    nvidia.cards.pop()
    nvidia.show()
    code, lines, _ = nvidia.check()
    assert code == 78
    assert lines[0] == "1 of 2 l40s on the PCI bus (0000:1b:00.0): reseat the missing card, or correct gpu_count"


def test_a_card_that_fell_off_the_bus_is_named(nvidia):
    nvidia.cards[1] = replace(nvidia.cards[1], answers=False)
    nvidia.show()
    code, lines, _ = nvidia.check()
    assert (code, len(lines)) == (78, 1)
    assert lines[0].startswith("GPU 0000:2b:00.0 does not answer on the PCI bus")


def test_a_library_of_another_version_than_the_module_is_a_mismatch(nvidia):
    nvidia.remove(f"usr/lib/x86_64-linux-gnu/libcuda.so.{VERSION}")
    nvidia.write("usr/lib/x86_64-linux-gnu/libcuda.so.580.200.01")
    code, lines, _ = nvidia.check()
    assert code == 78
    (line,) = lines
    assert f"driver/library mismatch: the kernel has {VERSION} loaded, the libraries on disk are 580.200.01" in line


def test_a_module_that_waits_for_its_reload_is_told(nvidia):
    nvidia.write("modinfo/nvidia", "580.200.01")
    (line,) = nvidia.check()[1]
    assert line.startswith(f"kernel module nvidia {VERSION} is loaded, 580.200.01 is installed: run deploys/drivers.py")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("dev/nvidia-uvm", "device node /dev/nvidia-uvm is missing"),
        ("dev/nvidia1", "device node /dev/nvidia1 is missing"),
        ("proc/driver/nvidia/gpus/0000:2b:00.0/information", "GPU 0000:2b:00.0 is not driven"),
    ],
)
def test_what_the_driver_did_not_make_is_named(nvidia, path, words):
    nvidia.remove(path)
    if path.endswith("information"):
        (nvidia.root / path).parent.rmdir()
    assert nvidia.check()[1][0].startswith(words)


def test_the_wrong_flavour_and_branch_are_told_together(nvidia):
    nvidia.write("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.1")
    write_modules(nvidia.root / "sys/module", dict.fromkeys(nvidia.plan.modules, "570.1"))
    nvidia.write("modinfo/nvidia", "570.1")
    nvidia.remove(f"usr/lib/x86_64-linux-gnu/libcuda.so.{VERSION}")
    nvidia.write("usr/lib/x86_64-linux-gnu/libcuda.so.570.1")
    assert nvidia.check()[1] == [
        "the proprietary kernel module is loaded, these cards are planned with the open one",
        "driver 570.1 is loaded, planned is branch 580",
    ]


def test_modules_that_are_not_loaded_are_named(nvidia):
    write_modules(nvidia.root / "sys/module", {})
    assert [line.partition(":")[0] for line in nvidia.check()[1]] == [
        "kernel module nvidia is not loaded",
        "kernel module nvidia_uvm is not loaded",
    ]


@pytest.mark.parametrize(
    ("state", "status", "ready"),
    [("Completed", "Success", True), ("N/A", "N/A", True), ("In Progress", "N/A", False), ("Completed", "1", False)],
)
def test_links_between_cards_have_to_be_up(tmp_path, state, status, ready):
    tree = Tree(tmp_path, "h100-sxm-80gb", "debian-12", count=8)
    tree.write("nvidia-smi-q.txt", FABRIC.format(state=state, status=status))
    code, lines, _ = tree.check()
    assert (code == 0) == ready
    if not ready:
        assert lines == [
            f"GPU 00000000:1b:00.0: NVSwitch fabric {state}, {status}: see `systemctl status nvidia-fabricmanager`"
        ]


@pytest.mark.parametrize("tag", ["mi300x", "arc-b580"])
def test_a_graphics_card_needs_its_driver_and_a_render_node(tmp_path, tag):
    tree = Tree(tmp_path, tag, "ubuntu-24.04")
    tree.remove("dev/dri/renderD129")
    assert tree.check()[1] == [
        f"GPU 0000:2b:00.0 has no render node below /dev/dri: see `journalctl -k -g {tree.plan.modules[0]}`"
    ]
    tree.cards[1] = replace(tree.cards[1], driver="vfio-pci")
    tree.show()
    assert f"GPU 0000:2b:00.0 is driven by vfio-pci, expected {tree.plan.modules[0]}" in tree.check()[1]


def test_amds_compute_device_has_to_be_there(tmp_path):
    tree = Tree(tmp_path, "mi300x", "ubuntu-24.04")
    tree.remove("dev/kfd")
    assert tree.check()[1] == ["/dev/kfd is missing: amdgpu was built or started without compute support"]


def test_less_memory_than_the_tag_stands_for_is_told(tmp_path):
    tree = Tree(tmp_path, "mi300x", "ubuntu-24.04")
    tree.write("sys/bus/pci/devices/0000:1b:00.0/mem_info_vram_total", str(64 << 30))
    (line,) = tree.check()[1]
    assert line == f"GPU 0000:1b:00.0 has 65536 MiB, mi300x has {tree.plan.vram_mib} MiB: correct the tag"


# what services are told


def test_cards_and_their_nodes_are_told_by_number_in_pci_order(nvidia):
    for card, minor in zip(nvidia.cards, (1, 0), strict=True):
        nvidia.told(card, minor)
    assert nvidia.prepare() == (0, [])
    uuids = [f"GPU-0000000{number}-1111-2222-3333-444444444444" for number in (0, 1)]
    assert nvidia.published == [
        {"address": "0000:1b:00.0", "uuid": uuids[0], "node": "/dev/nvidia1", "vendor": "nvidia"},
        {"address": "0000:2b:00.0", "uuid": uuids[1], "node": "/dev/nvidia0", "vendor": "nvidia"},
    ]
    assert nvidia.links == {"gpu0": "/dev/nvidia1", "gpu1": "/dev/nvidia0"}


def test_every_user_may_read_it(nvidia):
    old = os.umask(0o077)
    try:
        nvidia.prepare()
    finally:
        os.umask(old)
    folder = nvidia.root / "run/rackserve"
    modes = [
        stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "gpus.json", nvidia.root / "dev/rackserve")
    ]
    assert modes == [0o755, 0o644, 0o755]


def test_links_follow_the_cards_and_those_of_more_cards_go(nvidia):
    for number in (1, 2, 10):
        (nvidia.root / "dev/rackserve").mkdir(exist_ok=True)
        (nvidia.root / f"dev/rackserve/gpu{number}").symlink_to("/dev/elsewhere")
    for _ in range(2):
        assert nvidia.prepare() == (0, [])
        assert nvidia.links == {"gpu0": "/dev/nvidia0", "gpu1": "/dev/nvidia1"}


def test_looking_writes_nothing(nvidia):
    assert nvidia.check()[0] == 0
    assert (nvidia.published, nvidia.links) == (None, {})


def test_a_host_that_is_not_as_planned_keeps_what_was_told_last(nvidia):
    nvidia.prepare()
    before = nvidia.published
    nvidia.cards.pop()
    nvidia.show()
    assert nvidia.prepare()[0] == 78
    assert (nvidia.published, len(nvidia.links)) == (before, 2)


def test_a_card_without_a_device_number_is_told(nvidia):
    nvidia.told(nvidia.cards[1], None)
    # A node of its display side, which is not the one that CUDA opens.
    (nvidia.root / "sys/bus/pci/devices/0000:2b:00.0/drm/renderD200").mkdir(parents=True)
    (line,) = nvidia.prepare()[1]
    assert line.startswith("GPU 0000:2b:00.0: /proc/driver/nvidia/gpus/0000:2b:00.0/information tells no UUID or no")
    assert nvidia.published is None


def test_services_that_cannot_be_told_must_not_start(nvidia):
    nvidia.write("dev/rackserve")
    code, (line,) = nvidia.prepare()
    assert code == 78
    assert line.startswith("services cannot be told which GPU is which: ")


def test_amds_cards_are_named_by_their_serial_numbers(tmp_path):
    tree = Tree(tmp_path, "mi300x", "ubuntu-24.04")
    tree.write("sys/bus/pci/devices/0000:1b:00.0/unique_id", "0a1b2c3d4e5f6071\n")
    tree.write("sys/bus/pci/devices/0000:2b:00.0/unique_id", "0000000000000000\n")
    assert tree.prepare() == (0, [])
    assert [card["uuid"] for card in tree.published] == ["GPU-0a1b2c3d4e5f6071", ""]
    assert tree.links == {"gpu0": "/dev/dri/renderD128", "gpu1": "/dev/dri/renderD129"}


def test_intels_cards_have_a_node_and_no_name(tmp_path):
    tree = Tree(tmp_path, "arc-b580", "ubuntu-24.04", count=1)
    assert tree.prepare() == (0, [])
    node = "/dev/dri/renderD128"
    assert tree.published == [{"address": "0000:1b:00.0", "uuid": "", "node": node, "vendor": "intel"}]


def test_a_host_without_expectations_says_what_writes_them(tmp_path):
    code, lines, _ = Tree.check(_empty(tmp_path))
    assert code == 78
    assert lines[0].startswith("/etc/rackserve/gpus.json cannot be read")


def _empty(root: Path) -> Any:
    tree = Tree.__new__(Tree)
    tree.root = root
    return tree
