"""What repositories have, recorded by hand, and what apt and dnf say of installing from them."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

DRIVER = "580.178.04"
AMDGPU = "6.16.13"
# A closed world: a package that is in none of these is one that nobody has.
_CUDA_DEB = {
    "nvidia-kernel-open-dkms": f"{DRIVER}-1",
    "nvidia-kernel-dkms": f"{DRIVER}-1",
    "nvidia-kernel-support": f"{DRIVER}-1",
    "nvidia-driver-cuda": f"{DRIVER}-1",
    "nvidia-persistenced": f"{DRIVER}-1",
    "nvidia-modprobe": f"{DRIVER}-1",
    "libcuda1": f"{DRIVER}-1",
    "libnvidia-ml1": f"{DRIVER}-1",
    "firmware-nvidia-gsp": f"{DRIVER}-1",
    "nvidia-fabricmanager": f"{DRIVER}-1",
    "libnvidia-nscq": f"{DRIVER}-1",
}
_CUDA_RPM = {
    "kmod-nvidia-open-dkms": f"3:{DRIVER}-1.el",
    "kmod-nvidia-latest-dkms": f"3:{DRIVER}-1.el",
    "nvidia-kmod-common": f"3:{DRIVER}-1.el",
    "nvidia-driver-cuda": f"3:{DRIVER}-1.el",
    "nvidia-driver-cuda-libs": f"3:{DRIVER}-1.el",
    "nvidia-persistenced": f"3:{DRIVER}-1.el",
    "nvidia-modprobe": f"3:{DRIVER}-1.el",
    "libnvidia-ml": f"3:{DRIVER}-1.el",
    "nvidia-fabricmanager": f"{DRIVER}-1",
    "libnvidia-nscq": f"{DRIVER}-1",
}
_CUDA_BESIDE = {
    "nvlsm": "2025.06.11-1",
    "datacenter-gpu-manager-4-core": "1:4.5.0-1",
    "datacenter-gpu-manager-4-cuda12": "1:4.5.0-1",
    "datacenter-gpu-manager-4-cuda13": "1:4.5.0-1",
}
# Ubuntu's archive, as the branch's own packages are called there.
_UBUNTU = {
    "nvidia-headless-no-dkms-580-server-open": f"{DRIVER}-0ubuntu1",
    "nvidia-headless-no-dkms-580-server": f"{DRIVER}-0ubuntu1",
    "nvidia-kernel-common-580-server": f"{DRIVER}-0ubuntu1",
    "nvidia-utils-580-server": f"{DRIVER}-0ubuntu1",
    "nvidia-compute-utils-580-server": f"{DRIVER}-0ubuntu1",
    "libnvidia-compute-580-server": f"{DRIVER}-0ubuntu1",
    "nvidia-fabricmanager-580": f"{DRIVER}-0ubuntu1",
    "libnvidia-nscq-580": f"{DRIVER}-0ubuntu1",
}
_LEVEL_ZERO = {"libze1": "1.22.4-1", "libze-intel-gpu1": "25.27-1", "intel-opencl-icd": "25.27-1"}
_TOOLKIT = dict.fromkeys(
    ("nvidia-container-toolkit-base", "nvidia-container-toolkit", "libnvidia-container-tools", "libnvidia-container1"),
    "1.20.0-1",
)
VENDORS: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("nvidia-cuda", "debian"): {**_CUDA_DEB, **_CUDA_BESIDE},
    ("nvidia-cuda", "ubuntu"): _CUDA_BESIDE,
    ("nvidia-cuda", "el"): {**_CUDA_RPM, **_CUDA_BESIDE},
    ("amdgpu", "ubuntu"): {"amdgpu-dkms": f"1:{AMDGPU}.31500000-1.24", "amdgpu-dkms-firmware": "1:31.50-1.24"},
    ("epel", "el"): {"dkms": "3.2.1-1.el"},
    ("amdgpu", "el"): {"amdgpu-dkms": f"1:{AMDGPU}.31500000-1.el", "amdgpu-dkms-firmware": "1:31.50-1.el"},
    ("intel-graphics", "ubuntu"): _LEVEL_ZERO,
    **{("nvidia-container-toolkit", family): _TOOLKIT for family in ("debian", "ubuntu", "el")},
}
_DEPENDS = {
    "nvidia-kernel-open-dkms": ("nvidia-kernel-support", "firmware-nvidia-gsp"),
    "nvidia-kernel-dkms": ("nvidia-kernel-support", "firmware-nvidia-gsp"),
    "nvidia-driver-cuda-libs": ("libnvidia-ml",),
    "kmod-nvidia-open-dkms": ("nvidia-kmod-common",),
    "kmod-nvidia-latest-dkms": ("nvidia-kmod-common",),
    "nvidia-headless-no-dkms-580-server-open": ("nvidia-kernel-common-580-server",),
    "nvidia-headless-no-dkms-580-server": ("nvidia-kernel-common-580-server",),
}
HWE = "6.17.0-20-generic"


def distribution(system: str, kernels: Iterable[str]) -> dict[str, str]:
    """The distribution's own packages, with those for its kernels."""
    family = system.partition("-")[0]
    found = {"python3": "3.11", "infiniband-diags": "57-1", "clinfo": "3.0"}
    found |= {"ca-certificates": "2025", "gpg": "2.4-1", "curl": "8-1"}
    if family not in {"debian", "ubuntu"}:
        found |= {"kernel-devel-matched": "1-1", "kernel-headers": "1-1"}
        return found | {f"kernel-devel-{kernel}": "1-1" for kernel in kernels}
    found |= {"dkms": "3.2.1-1"} | {f"linux-headers-{kernel}": "1-1" for kernel in kernels}
    if family == "debian":
        return found | {"linux-headers-amd64": "1-1"}
    found |= _UBUNTU | {"linux-headers-generic": "1-1", "linux-headers-generic-hwe-24.04": "1-1"}
    suffixes = ("generic", "generic-hwe-24.04", *kernels)
    found |= {f"linux-modules-nvidia-580-server{kind}-{name}": "1-1" for name in suffixes for kind in ("-open", "")}
    if system == "ubuntu-24.04":
        found |= {"linux-generic-hwe-24.04": "6.17.0.20", f"linux-image-{HWE}": "1-1"}
    return found | (_LEVEL_ZERO if system == "ubuntu-26.04" else {})


@dataclass
class Simulator:
    """What a package manager would do, given what it is offered and has. removes, broken: for hosts in trouble."""

    offers: Mapping[str, str]
    has: Mapping[str, str]
    newest: str
    removes: tuple[str, ...] = ()
    noise: list[str] = field(default_factory=list)

    def name_of(self, word: str) -> str:
        """The package that a word of a command line means, empty for none: NAME, or NAME-VERSION."""
        if word in self.offers or word in self.has:
            return word
        name, _, version = word.rpartition("-")
        return name if upstream(self.offers.get(name, "")) == version and version else ""

    def coming(self, words: Iterable[str]) -> dict[str, str]:
        """New packages and those of another version, with what they depend on."""
        found: dict[str, str] = {}
        waiting = [self.name_of(word) for word in words]
        while waiting:
            name = waiting.pop(0)
            if (
                name in self.offers
                and name not in found
                and stored(self.has.get(name, "")) != stored(self.offers[name])
            ):
                found[name] = self.offers[name]
            waiting += [other for other in self._depends(name) if other not in found]
        return found

    def _depends(self, name: str) -> tuple[str, ...]:
        if name.startswith("linux-headers-") and f"linux-headers-{self.newest}" in self.offers:
            return (f"linux-headers-{self.newest}",)
        if name.startswith("linux-modules-nvidia-") and not name.endswith(self.newest):
            kind = name.partition("-server")[2].startswith("-open")
            return (f"linux-modules-nvidia-580-server{'-open' if kind else ''}-{self.newest}",)
        if name == "linux-generic-hwe-24.04":
            return (f"linux-image-{HWE}",)
        return _DEPENDS.get(name, ())

    def apt(self, words: list[str], globs: list[str]) -> list[str]:
        """As the fact's command prints it."""
        said = ["apt", "Reading package lists..."]
        if missing := [word for word in words if not self.name_of(word)]:
            return [*said, *(f"E: Unable to locate package {name}" for name in missing), "@code", "100"]
        coming = self.coming(words)
        said += [f"Remv {name} [1-1]" for name in self.removes]
        said += [
            f"Inst {name} {f'[{self.has[name]}] ' if name in self.has else ''}({version} Vendor:stable [amd64])"
            for name, version in coming.items()
        ]
        sizes = ["@sizes", "Need to get 312 MB of archives.", "After this operation, 1,024 MB of additional"]
        candidates = [f" {name} | {self.offers[name]} | http://archive Packages" for name in words]
        return [*said, "@code", "0", *sizes, "@candidates", *candidates, "@installed", *self._installed(globs)]

    def dnf(self, words: list[str], globs: list[str]) -> list[str]:
        """As the fact's command prints it."""
        said = ["dnf", "Last metadata expiration check: 0:00:31 ago on Tue 24 Nov 2026 10:00:00 AM UTC."]
        known = {name: version for name, version in self.offers.items() if any(name in word for word in words)}
        rest = ["@candidates", *(f"{name}|{stored(version)}" for name, version in known.items())]
        rest += ["@installed", *self._installed(globs)]
        if missing := [word for word in words if not self.name_of(word)]:
            lines = [f"No match for argument: {word}" for word in missing]
            return [*said, *lines, f"Error: Unable to find a match: {' '.join(missing)}", "@code", "1", *rest]
        coming = self.coming(words)
        if not coming and not self.removes:
            return [*said, "Nothing to do.", "Complete!", "@code", "0", *rest]
        new = [name for name in coming if name not in self.has]
        said += ["Dependencies resolved.", "Installing:", *(_row(name, coming[name]) for name in new)]
        if changed := [name for name in coming if name in self.has]:
            said += ["Upgrading:", *(_row(name, coming[name]) for name in changed)]
        if self.removes:
            said += ["Removing dependent packages:", *(_row(name, "1-1") for name in self.removes)]
        said += ["", "Transaction Summary", "Total download size: 312 M", "Installed size: 1.1 G", "Operation aborted."]
        return [*said, "@code", "1", *rest]

    def _installed(self, globs: list[str]) -> list[str]:
        mine = (name for name in self.has if any(fnmatch.fnmatchcase(name, glob) for glob in globs))
        return [f"{name}|{self.has[name]}" for name in mine]


def _row(name: str, version: str) -> str:
    # A name that is too long for its column stands on a line of its own, without the blank before it.
    return f" {name:<24} x86_64 {version} rackserve-vendor 1.2 M"


def stored(version: str) -> str:
    """VERSION-RELEASE, as rpm prints it where it is not asked for the epoch."""
    return version.rpartition(":")[2] if ":" in version else version


def upstream(version: str) -> str:
    """The vendor's part."""
    return stored(version).partition("-")[0]
