"""Facts that a host's stack is solved from: operating systems, drivers, CUDA, ROCm and runtime versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from rackserve.domain.base import Frozen
from rackserve.domain.gpu import Vendor, Version

SystemId = Annotated[str, StringConstraints(pattern=r"^[a-z]+-[a-z0-9]+(\.[0-9]+)?$", max_length=40)]
# What packaging.version reads without fail, and nothing that it would have to normalise but a post-release that is
# written as LM Studio writes it: 0.0.25-1 comes after 0.0.25.
ReleaseVersion = Annotated[
    str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+){0,3}((a|b|rc)[0-9]+)?(\.post[0-9]+|-[0-9]+)?$", max_length=40)
]
Capability = Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]$")]
Flavour = Literal["open", "proprietary"]
Item = TypeVar("Item")


def _not_empty(items: tuple[Item, ...]) -> tuple[Item, ...]:
    # Not Field(min_length=1): that complains of an empty tuple as well where a single item is wrong.
    if not items:
        msg = "has to name at least one"
        raise ValueError(msg)
    return items


Some = Annotated[tuple[Item, ...], AfterValidator(_not_empty)]
InstallKind = Literal["wheel", "image", "archive", "package", "build"]
# What computes.
Backend = Literal["cuda", "rocm", "sycl", "vulkan", "metal", "cpu"]


class SystemFacts(Frozen):
    """One release of an operating system.

    kernel: Linux version of its default kernel.
    hwe_kernel, hwe_package: a newer kernel that it also ships, at least this version, and the package that brings it.
    glibc: version of its C library.
    nvidia_signed: driver branches whose modules it ships built and signed for its own kernels: no DKMS, no MOK.
    nvidia_repo: this system's path name in NVIDIA's package repository; its modules are built by DKMS.
    nvidia_repo_first: the oldest branch in that repository. None: all branches that the catalogue names.
    amdgpu_suite: this system's name in AMD's driver repository.
    intel_user_mode: where Level Zero and OpenCL for Arc come from. Empty: from nowhere.
    """

    id: SystemId
    name: str
    platform: Literal["linux", "macos"] = "linux"
    kernel: Version | None = None
    hwe_kernel: Version | None = None
    hwe_package: str = ""
    glibc: Version | None = None
    nvidia_signed: tuple[Version, ...] = ()
    nvidia_repo: str = ""
    nvidia_repo_first: Version | None = None
    amdgpu_suite: str = ""
    intel_user_mode: str = ""
    source: str
    date: str


class NvidiaDriver(Frozen):
    """A branch of NVIDIA's driver.

    version: the newest one seen. None: not read anywhere, and floors are compared with the branch alone.
    supported: NVIDIA still supports it. `ends` is when that ends or ended, year and month.
    capability_min, capability_max: compute capabilities that it drives.
    kernel_modules: flavours of the kernel module that it comes with.
    note: what an operator who takes this branch has to know.
    """

    branch: Version
    kind: Literal["ltsb", "production", "new-feature"]
    version: Version | None = None
    supported: bool
    ends: str = ""
    capability_min: Capability
    capability_max: Capability | None = None
    kernel_modules: Some[Flavour]
    note: str = ""
    source: str
    date: str


class AmdDriver(Frozen):
    """A release of AMD's kernel driver (amdgpu-dkms), which is numbered apart from ROCm.

    rocm: the ROCm release that it came out with. rocm_min, rocm_max: ROCm families that run on it.
    kernel_min, kernel_max: Linux versions that it builds for. kernel_max is inclusive.
    suites: names of systems in AMD's repository that it is packaged for.
    """

    series: Version
    version: Version
    rocm: Version
    rocm_min: Version
    rocm_max: Version
    kernel_min: Version
    kernel_max: Version | None = None
    suites: tuple[str, ...]
    source: str
    date: str


class CudaFacts(Frozen):
    """A major release of CUDA: the driver that all of its minor releases run on, the oldest GPU it compiles for."""

    family: Version
    driver_min: Version
    capability_min: Capability | None = None
    source: str
    date: str


class RocmFacts(Frozen):
    """A release of ROCm's user space, and the systems it is packaged for."""

    family: Version
    release: Version
    systems: tuple[SystemId, ...]
    source: str
    date: str


class RuntimeBuild(Frozen):
    """One form in which a runtime version can be had, and what it needs.

    systems: only for these. Empty: for all systems of the platform.
    version: the build has exactly this version of the runtime, wherever it is taken from.
    backend: what computes.
    cuda, rocm: the release it was built with.
    host_rocm: it brings its own ROCm, or needs ROCm's user space installed, or must not meet one on the host.
    driver_min: NVIDIA driver or amdgpu series that it needs beyond what CUDA or ROCm need.
    capability_min, capability_max: compute capabilities that it has kernels for.
    targets: names of GPU targets that it has kernels for (gfx942). Empty: all.
    glibc: C library of the host that it needs at least.
    python: the only interpreter that it runs with, where that is narrower than what the version allows.
    note: what an operator who takes this build has to know.
    """

    vendor: Vendor
    install: InstallKind
    platform: Literal["linux", "macos"] = "linux"
    systems: tuple[SystemId, ...] = ()
    version: ReleaseVersion | None = None
    backend: Backend
    cuda: Version | None = None
    rocm: Version | None = None
    host_rocm: Literal["any", "needed", "barred"] = "any"
    driver_min: Version | None = None
    capability_min: Capability | None = None
    capability_max: Capability | None = None
    targets: tuple[str, ...] = ()
    glibc: Version | None = None
    python: Version | None = None
    note: str = ""

    @property
    def container_toolkit(self) -> bool:
        """A container sees NVIDIA's GPUs through the NVIDIA Container Toolkit only."""
        return self.install == "image" and self.vendor == "nvidia"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


class RuntimeVersions(Frozen):
    """Versions of one runtime that need the same things: `first` <= version < `before`.

    pick: the one taken where the operator names none.
    also: other names of versions in this range, such as the tags of releases.
    prerelease: taken only when it is named.
    python: the interpreter to run its wheels with. python_min, python_before: the ones that they allow.
    builds: in order of preference; the first that suits the host is taken.
    """

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([.-][a-z0-9]+)*$", max_length=60)]
    runtime: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([.-][a-z0-9]+)*$", max_length=40)]
    first: ReleaseVersion
    before: ReleaseVersion
    pick: ReleaseVersion
    also: tuple[str, ...] = ()
    prerelease: bool = False
    torch: ReleaseVersion | None = None
    python: Version | None = None
    python_min: Version | None = None
    python_before: Version | None = None
    builds: Some[RuntimeBuild]
    source: str
    date: str

    @model_validator(mode="after")
    def _python_is_allowed(self) -> Self:
        if self.python is None:
            return self
        taken = _numbers(self.python)
        if self.python_min is not None and taken < _numbers(self.python_min):
            msg = f"python {self.python} is older than python_min {self.python_min}"
            raise ValueError(msg)
        if self.python_before is not None and taken >= _numbers(self.python_before):
            msg = f"python {self.python} is not older than python_before {self.python_before}"
            raise ValueError(msg)
        return self


class StackPolicy(Frozen):
    """What to choose where several things work, and limits that go by NVIDIA's generations.

    nvidia_drivers, amd_drivers: in order of choice; the first that suits the host is taken.
    open_from: the lowest compute capability that NVIDIA's open kernel modules drive.
    open_only_from: from this compute capability on there is no other flavour.
    nvlsm_from: boards with NVSwitch need the NVLink subnet manager from this compute capability on.
    """

    nvidia_drivers: tuple[Version, ...] = ()
    amd_drivers: tuple[Version, ...] = ()
    open_from: Capability | None = None
    open_only_from: Capability | None = None
    nvlsm_from: Capability | None = None
    source: str = ""
    date: str = ""


class StackFacts(Frozen):
    """All of it. Each field is a section of the catalogue's files."""

    systems: Mapping[SystemId, SystemFacts] = Field(default_factory=dict)
    nvidia_drivers: Mapping[Version, NvidiaDriver] = Field(default_factory=dict)
    amd_drivers: Mapping[Version, AmdDriver] = Field(default_factory=dict)
    cuda: Mapping[Version, CudaFacts] = Field(default_factory=dict)
    rocm: Mapping[Version, RocmFacts] = Field(default_factory=dict)
    runtimes: Mapping[str, RuntimeVersions] = Field(default_factory=dict)
    stack_policy: StackPolicy = StackPolicy()


# Sections of named entries, and the key that holds the entry's name.
ENTRY_TYPES: Mapping[str, tuple[type[Frozen], str]] = {
    "systems": (SystemFacts, "id"),
    "nvidia_drivers": (NvidiaDriver, "branch"),
    "amd_drivers": (AmdDriver, "series"),
    "cuda": (CudaFacts, "family"),
    "rocm": (RocmFacts, "family"),
    "runtimes": (RuntimeVersions, "id"),
}
