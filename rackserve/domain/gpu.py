"""A GPU as the inventory tags it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from rackserve.domain.base import Frozen, Tag

PciId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$")]
Vendor = Literal["none", "nvidia", "amd", "intel", "apple"]
Format = Literal["fp16", "bf16", "int8", "fp8", "mxfp4", "nvfp4"]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+){0,3}$")]

# What the runtime sees of a card where nobody has read its own figure, by vendor: the share of what the driver's
# tool prints, and MiB that it holds back at least. Start logs: NVIDIA's Linux drivers hold back 400 to 500 MiB (RTX
# 4070 11,866 of 12,282, T4 14,912 of 15,360, H100 81,091 of 81,559); Level Zero shows 95 %; HIP nearly all of it.
_RUNTIME_SHARE = {"nvidia": 0.98, "amd": 0.99, "intel": 0.95}
_HELD_BACK_MIB = {"nvidia": 500}


class Gpu(Frozen):
    """What one tag stands for.

    vram_mib: memory of one card as its driver's tool prints it, in MiB; 0 means that the host serves from its own RAM
        (tag `cpu`, and Apple's unified memory), whose size the inventory states.
    runtime_mib: the total that the runtime sees (cudaMemGetInfo, hipMemGetInfo), in MiB. Engines take their share of
        this figure and not of vram_mib. Left out, it is estimated from vram_mib, on the safe side.
    unified_share: the share of the host's RAM that the GPU may use, where memory is unified (Apple), else 0.
    target: compute capability ("8.9"), LLVM target ("gfx942") or family ("xe2", "metal3") that kernels are built for.
    formats: number formats that the silicon multiplies natively. Others are unpacked to bf16 first, where that works.
    bandwidth_gb_s: memory bandwidth of one card in GB/s (10^9); the roof of its decode speed. None: not known.
    link: how several cards in one host are joined.
    nvswitch: the boards of this card carry NVSwitches: Fabric Manager of exactly the driver's version is needed.
    driver_min: the first driver branch (NVIDIA) or kernel (Intel) that knows the card.
    kernel_module: which flavour of NVIDIA's kernel module drives it.
    data_centre: sold for data centres; NVIDIA's forward-compatibility libraries work on these only.
    pci_ids: all vendor:device pairs that are sold under this name with this memory.
    """

    tag: Tag
    name: str
    vendor: Vendor
    vram_mib: int = Field(ge=0)
    runtime_mib: int | None = Field(default=None, ge=1)
    unified_share: float = Field(default=0.0, ge=0, le=1)
    target: str = ""
    formats: tuple[Format, ...] = ()
    bandwidth_gb_s: float | None = Field(default=None, gt=0)
    link: Literal["none", "pcie", "nvlink", "xgmi"] = "pcie"
    nvswitch: bool = False
    driver_min: Version | None = None
    kernel_module: Literal["none", "either", "open", "proprietary"] = "none"
    data_centre: bool = False
    pci_ids: tuple[PciId, ...] = ()
    source: str
    date: str

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.runtime_mib is not None and self.runtime_mib > self.vram_mib:
            msg = f"runtime_mib {self.runtime_mib} is more than vram_mib {self.vram_mib}"
            raise ValueError(msg)
        if self.vendor == "nvidia" and not self._capability_is_stated():
            msg = 'target has to be the compute capability of an NVIDIA card, as in "8.9"'
            raise ValueError(msg)
        return self

    def _capability_is_stated(self) -> bool:
        major, point, minor = self.target.partition(".")
        return point == "." and major.isdecimal() and minor.isdecimal()

    @property
    def compute_capability(self) -> tuple[int, int] | None:
        """Major and minor compute capability of an NVIDIA card, None for others."""
        if self.vendor != "nvidia":
            return None
        major, _, minor = self.target.partition(".")
        return int(major), int(minor)

    @property
    def usable_mib(self) -> int:
        """MiB of one card that a runtime can see; 0 where memory is the host's own."""
        if self.runtime_mib is not None:
            return self.runtime_mib
        share, held_back = _RUNTIME_SHARE.get(self.vendor, 1.0), _HELD_BACK_MIB.get(self.vendor, 0)
        return max(0, min(int(self.vram_mib * share), self.vram_mib - held_back))
