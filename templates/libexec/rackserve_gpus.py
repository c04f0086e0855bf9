# ruff: noqa: INP001 (it lies beside gpu-ready, which imports it, and is no package)
# Written by rackserve; changes here are overwritten by the next run.
"""What gpu-ready sees of a host's GPUs, and how it tells the services which card has which number."""

from __future__ import annotations

import json
import re
from collections.abc import Container
from pathlib import Path

# Read by the programs beside the services' units, and by those who look what a number stands for.
GPUS = "run/rackserve/gpus.json"
# Numbered links to the cards' device nodes, which a unit can name before it is known which card is where.
LINKS = "dev/rackserve"


class Host:
    """What is looked at, below a root folder: a recorded host's files can be replayed."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        self.live = self.root == Path("/")

    def path(self, *parts: str | Path) -> Path:
        """Where a file of the host is."""
        return self.root.joinpath(*parts)

    def text(self, *parts: str | Path) -> str:
        """A small file's content, empty where it is not there."""
        try:
            return self.path(*parts).read_text(errors="replace").strip()
        except OSError:
            return ""

    def cards(self, ids: Container[str]) -> list[str]:
        """Addresses of the cards with one of these PCI ids, in PCI order."""
        found = []
        for device in sorted(self.path("sys/bus/pci/devices").glob("*")):
            vendor, kind = (self.text(device, name)[2:] for name in ("vendor", "device"))
            if f"{vendor}:{kind}" in ids:
                found.append(device.name)
        return found

    def answers(self, address: str) -> bool:
        """Whether a card's configuration space can be read: of one that fell off the bus every bit reads as one."""
        try:
            with self.path("sys/bus/pci/devices", address, "config").open("rb") as file:
                head = file.read(4)
        except OSError:
            return False
        return head != b"\xff\xff\xff\xff"

    def bound(self, address: str) -> str:
        """The kernel driver that a card belongs to."""
        link = self.path("sys/bus/pci/devices", address, "driver")
        return link.resolve().name if link.is_symlink() else ""

    def loaded(self, module: str) -> bool:
        """Whether a module is in the kernel."""
        return self.path("sys/module", module).is_dir()

    def node(self, address: str) -> str:
        """The device node that a card is opened by, empty where its driver made none.

        NVIDIA's is numbered in the order in which the cards were found, which is not always that of their addresses.
        """
        told = self._nvidia(address)
        minor = re.search(r"^Device Minor:\s*(\d+)", told, re.MULTILINE)
        if told:
            return f"/dev/nvidia{minor[1]}" if minor else ""
        renders = sorted(self.path("sys/bus/pci/devices", address, "drm").glob("renderD*"))
        return f"/dev/dri/{renders[0].name}" if renders else ""

    def uuid(self, address: str) -> str:
        """A card's own name as its vendor's libraries take it, empty where it has none.

        AMD's is its serial number in 16 digits, since Vega, and not of every consumer card.
        Source: amd_filter_device.cpp of ROCr, amdgpu_pm.c of Linux.
        """
        nvidia = re.search(r"^GPU UUID:\s*(GPU-[0-9a-f-]+)", self._nvidia(address), re.MULTILINE)
        serial = self.text("sys/bus/pci/devices", address, "unique_id")
        amd = re.fullmatch(r"[0-9a-f]{16}", serial) and int(serial, 16)
        return nvidia[1] if nvidia else f"GPU-{serial}" if amd else ""

    def _nvidia(self, address: str) -> str:
        return self.text("proc/driver/nvidia/gpus", address, "information")


def publish(host: Host, cards: list[dict[str, str]]) -> None:
    """Write down the cards in PCI order, and link each one's node by its number.

    Whoever reads meanwhile finds the old or the new, whole. Raises OSError.
    """
    known, links = host.path(GPUS), host.path(LINKS)
    for folder in (known.parent, links):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
    fresh = known.with_suffix(".new")
    fresh.write_text(json.dumps(cards, indent=2) + "\n")
    fresh.chmod(0o644)
    fresh.replace(known)
    for number, card in enumerate(cards):
        link = links / f".gpu{number}"
        link.unlink(missing_ok=True)
        link.symlink_to(card["node"])
        link.replace(links / f"gpu{number}")
    for link in set(links.glob("gpu*")) - {links / f"gpu{number}" for number in range(len(cards))}:
        link.unlink()
