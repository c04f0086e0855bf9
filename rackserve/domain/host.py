"""One host of the inventory, with the settings that hold for it."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from rackserve.domain.archives import ArchiveRuntime, PinnedArchive
from rackserve.domain.base import AbsolutePath, Frozen, Sha256, Tag, Url
from rackserve.domain.image import ImageByDigest, ImageRuntime
from rackserve.domain.policy import DEFAULT_CEILING, MOST_CEILING
from rackserve.domain.repository import RepositoryName
from rackserve.domain.service import Ipv4, Service


def _reachable(value: str) -> str:
    address = IPv4Address(value)
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        msg = "expected an address that other hosts reach"
        raise ValueError(msg)
    return value


class LlamaCppSettings(Frozen):
    """How llama-server gets onto a host. Inventory keys carry the prefix `llamacpp_`.

    install: `auto` takes the distribution's package where the catalogue knows one and the pinned archive elsewhere.
    archive_url, archive_sha256: an archive other than the catalogue's pin.
    mirror: base URL that stands in for the release host; the same file names and checksums are expected below it.
    build_jobs: compiler processes for `build`; None means all cores of the building host.
    """

    install: Literal["auto", "package", "archive", "mirror", "build"] = "auto"
    archive_url: Url | None = None
    archive_sha256: Sha256 | None = None
    mirror: Url | None = None
    build_jobs: int | None = Field(default=None, ge=1, le=512)


class Host(Frozen):
    """A host as the inventory describes it.

    memory_mib: RAM that the host has, in MiB. Required for the tag `cpu`, whose services live in RAM.
    memory_ceiling: the share of that memory, or of each GPU's, that all services together may use.
    gpu_count: GPUs of this tag in the host.
    os, kernel: what the host runs, as in "ubuntu-24.04" and "6.8.0"; needed to check the driver and runtime stack.
    driver_branch, kernel_module, allow_eol, secure_boot: what the stack has to keep to; left out, the catalogue's
    policy. A branch of NVIDIA's driver ("580") or a series of AMD's ("30.30").
    driver_version: one exact version of that branch; left out, the catalogue's, or what the distribution has.
    secure_boot: "mok" where the firmware demands signed modules and accepts the host's own key.
    package_mirrors: base URLs that stand in for vendors' repositories, by repository name; keys are checked as ever.
    adopt: move aside what others have configured where it contradicts the plan; otherwise the host is refused.
    allow_reboot: reboot where a driver cannot be loaded without it.
    reboot_timeout: seconds that the host may take until it answers again.
    dcgm: install NVIDIA's data-centre GPU manager; left out, on data-centre cards.
    container_engines: besides the runtimes', what else is to be given the GPUs through the Container Toolkit.
    images: container images in place of the catalogue's, by runtime; a mirror's, or another build.
    gpu_simulated: the tag is pretended: planned for as a GPU's memory, served on the CPU, PCI bus not compared.
    node_address: IPv4 address by which other hosts reach this one; for instances that are spread over several hosts.
    node_interface: the network interface that has it, by the kernel's name.
    archives: release archives in place of the catalogue's, by runtime; a mirror's, or another version's.
    python_mirror: base URL that stands in for where uv downloads a Python from, where the host's own does not suit.
    allow_unknown_versions: plan versions of runtimes that the tables of options do not reach, with a warning.
    lmstudio_accept_license: the operator has read LM Studio's terms of use and agrees to them.
    hf_token_file: the operator's local file with a token of the model hub, for models that ask who fetches them.
    apt_lock_timeout: seconds to wait for another package manager to finish.
    """

    name: str
    gpu_tag: Tag
    gpu_simulated: bool = False
    gpu_count: int = Field(default=1, ge=1, le=64)
    os: Annotated[str, StringConstraints(pattern=r"^[a-z]+-[a-z0-9.]{1,20}$")] | None = None
    kernel: Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+){0,3}([.+-][A-Za-z0-9._+~-]+)?$")] | None = None
    driver_branch: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,4}(\.[0-9]{1,4})?$")] | None = None
    kernel_module: Literal["open", "proprietary"] | None = None
    allow_eol: bool = False
    secure_boot: bool | Literal["mok"] | None = None
    driver_version: Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+){1,3}$", max_length=40)] | None = None
    package_mirrors: Mapping[RepositoryName, Url] = {}
    adopt: bool = False
    allow_reboot: bool = True
    reboot_timeout: int = Field(default=1800, ge=60, le=7200)
    dcgm: bool | None = None
    container_engines: tuple[Literal["docker", "containerd"], ...] = ()
    images: Mapping[ImageRuntime, ImageByDigest] = {}
    archives: Mapping[ArchiveRuntime, PinnedArchive] = {}
    lmstudio_accept_license: bool = False
    python_mirror: Url | None = None
    allow_unknown_versions: bool = False
    memory_mib: int | None = Field(default=None, ge=64, le=64 * 2**20)
    memory_ceiling: float = Field(default=DEFAULT_CEILING, gt=0, le=MOST_CEILING)
    services: tuple[Service, ...] = ()
    model_hub: Url | None = None
    node_address: Annotated[Ipv4, AfterValidator(_reachable)] | None = None
    node_interface: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9._-]{1,15}$")] | None = None
    hf_token_file: str | None = None
    models_dir: AbsolutePath = "/srv/models"
    apt_lock_timeout: int = Field(default=600, ge=0, le=7200)
    start_timeout: int = Field(default=900, ge=10, le=7200)
    catalog: tuple[str, ...] = ()
    llamacpp: LlamaCppSettings = LlamaCppSettings()
