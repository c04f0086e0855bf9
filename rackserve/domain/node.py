"""A host as it really is, read from the host itself."""

from __future__ import annotations

from rackserve.domain.base import Frozen


class Node(Frozen):
    """What a host cannot stop being while rackserve works on it.

    `memory_mib` is MemTotal; `pci_gpus` are vendor:device ids of display controllers and processing accelerators;
    `glibc` is `0` where the C library is another one; `chip` is Apple's name for the machine's; `python` is the version
    of Linux's /usr/bin/python3 ("3.11"), empty where there is none yet.
    """

    distribution: str
    codename: str
    version: str = ""
    architecture: str
    glibc: str
    memory_mib: int
    systemd: bool
    cpu_flags: frozenset[str]
    pci_gpus: tuple[str, ...]
    chip: str = ""
    python: str = ""

    @property
    def system(self) -> str:
        """The catalogue's word for the system."""
        return system_id(self.distribution, self.version, self.codename)


def system_id(distribution: str, version: str, codename: str) -> str:
    """The catalogue's word for a system: debian-12, ubuntu-24.04, rocky-9. Debian testing has a codename only."""
    if distribution == "ubuntu":
        return f"ubuntu-{version}"
    return f"{distribution}-{version.partition('.')[0] or codename}"
