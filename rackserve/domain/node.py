"""A host as it really is, read from the host itself."""

from __future__ import annotations

from rackserve.domain.base import Frozen


class Node(Frozen):
    """What a host cannot stop being while rackserve works on it.

    `memory_mib` is MemTotal; `pci_gpus` are vendor:device ids of display controllers and processing accelerators;
    `glibc` is `0` where the C library is another one.
    """

    distribution: str
    codename: str
    architecture: str
    glibc: str
    memory_mib: int
    systemd: bool
    cpu_flags: frozenset[str]
    pci_gpus: tuple[str, ...]
