"""A GPU as the inventory tags it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from rackserve.domain.base import Frozen, Tag

PciId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$")]


class Gpu(Frozen):
    """What one tag stands for.

    `vram_mib` is the memory of one card in MiB; 0 means that the host serves from its own RAM (tag `cpu`).
    `pci_ids` are all vendor:device pairs that are sold under this name.
    """

    tag: Tag
    name: str
    vendor: Literal["none", "nvidia", "amd", "intel"]
    vram_mib: int = Field(ge=0)
    pci_ids: tuple[PciId, ...] = ()
    source: str
    date: str
