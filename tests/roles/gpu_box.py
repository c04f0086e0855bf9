"""A host with GPUs that only pretends: it answers what is asked of it, and changes by what it is sent."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rackserve.catalog.loader import load_catalog
from rackserve.domain.gpu_state import PciDevice
from rackserve.operations import commands as built
from tests.roles import gpu_facts
from tests.roles.fakes import Command, FailedError
from tests.roles.gpu_archive import AMDGPU, DRIVER, HWE, VENDORS, Simulator, distribution, stored, upstream

CATALOG = load_catalog()
_SCRIPTS = Path(built.__file__).parent / "scripts"
MARKER, OWED = "/var/lib/rackserve/driver.json", "/var/lib/rackserve/driver-reboot"
# Names that os-release and uname give a system, and the kernel that it comes with.
SYSTEMS = {
    "ubuntu-22.04": ("ubuntu", "22.04", "jammy", "5.15.0-160-generic"),
    "ubuntu-24.04": ("ubuntu", "24.04", "noble", "6.8.0-88-generic"),
    "ubuntu-26.04": ("ubuntu", "26.04", "resolute", "7.0.0-14-generic"),
    "debian-12": ("debian", "12", "bookworm", "6.1.0-41-amd64"),
    "debian-13": ("debian", "13", "trixie", "6.12.57+deb13-amd64"),
    "debian-forky": ("debian", "", "forky", "6.18.3+deb14-amd64"),
    "rhel-9": ("rhel", "9.6", "", "5.14.0-570.12.1.el9_6.x86_64"),
    "rhel-10": ("rhel", "10.0", "", "6.12.0-55.9.1.el10_0.x86_64"),
    "rocky-9": ("rocky", "9.6", "", "5.14.0-570.12.1.el9_6.x86_64"),
    "rocky-10": ("rocky", "10.0", "", "6.12.0-55.9.1.el10_0.x86_64"),
    "macos-15": ("macos", "15.6", "", "24.6.0"),
    "macos-26": ("macos", "26.1", "", "25.1.0"),
}
_DKMS = {"nvidia-kernel-open-dkms", "nvidia-kernel-dkms", "kmod-nvidia-open-dkms", "kmod-nvidia-latest-dkms"}
_BY_TEXT: dict[str, str] = {}


def sent(command: Command) -> tuple[str, ...]:
    """What a command does, in a few words: a script with its arguments, a file with its mode, or the command itself."""
    return _sent(str(command), command.stdin)


@functools.cache
def _sent(command: str, stdin: str) -> tuple[str, ...]:
    words = shlex.split(command)
    if words[:3] == ["sh", "-s", "--"]:
        if not _BY_TEXT:
            _BY_TEXT.update({built.script_text(file.name): file.name for file in _SCRIPTS.glob("*.sh")})
        # What comes from the hub has the hub's token before it, or an empty one.
        return (_BY_TEXT[stdin.removeprefix("rackserve_hub_token=''\n")], *words[3:])
    if "transfer cut off" in command:
        assert hashlib.sha256(stdin.encode()).hexdigest() == words[6]
        return ("write", words[4], words[5])
    if words[:3] == ["sh", "-c", 'echo "$1" >&2; exit 1']:
        return ("refuse", words[4])
    return tuple(words)


@dataclass
class Box:
    """A virgin host, which becomes one with a driver by what it is sent.

    files: text and mode by path. lists: the package manager has some. kernels: installed, the last one boots next.
    offers: what repositories have instead of what is recorded. gone: what they have no more.
    removes: what a transaction would take away. others: repository files of somebody else.
    look: another answer to GpuHost. stuck: it boots the kernel it had.
    """

    tag: str
    system: str
    count: int = 1
    kernels: list[str] = field(default_factory=list)
    kernel: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    headers: list[str] = field(default_factory=list)
    lists: bool = False
    programs: set[str] = field(default_factory=lambda: {"python3"})
    pci_id: str = ""
    offers: dict[str, str] = field(default_factory=dict)
    removes: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    secure_boot: bool = False
    run_file: bool = False
    stream: str = ""
    engines: set[str] = field(default_factory=set)
    others: dict[str, tuple[str, str]] = field(default_factory=dict)
    look: Callable[[Box, str], str] | None = None
    stuck: bool = False
    # What it becomes.
    boot: int = 1
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
    loaded: dict[str, str] = field(default_factory=dict)
    locks: set[str] = field(default_factory=set)
    owed: str = ""
    digest: str = ""
    cdi: bool = False
    configured: set[str] = field(default_factory=set)
    wired: tuple[int, str] = (0, "")

    def __post_init__(self) -> None:
        own = SYSTEMS[self.system][3]
        self.kernels = self.kernels or [own]
        self.kernel = self.kernel or self.kernels[0]
        meta = {"ubuntu": "linux-image-generic", "debian": "linux-image-amd64"}.get(self.family)
        self.packages = ({meta: "1-1"} if meta else {}) | {"python3": "3.11"} | self.packages
        if self.family == "el":
            self.programs |= {"gpg", "curl"}
        self.pci_id = self.pci_id or (*self.gpu.pci_ids, "")[0]
        self.start()

    @property
    def gpu(self) -> Any:
        return CATALOG.gpus[self.tag]

    @property
    def names(self) -> tuple[str, str, str]:
        """ID, VERSION_ID and VERSION_CODENAME of os-release."""
        return SYSTEMS[self.system][:3]

    @property
    def family(self) -> str:
        first = self.system.partition("-")[0]
        return first if first in {"ubuntu", "debian", "macos"} else "el"

    @property
    def module(self) -> str:
        names = {"nvidia": "nvidia", "amd": "amdgpu", "xe2": "xe", "xe-hpg": "i915"}
        return names.get(self.gpu.vendor) or names.get(self.gpu.target, "")

    @property
    def repositories(self) -> set[str]:
        return set(re.findall(r"rackserve-([a-z-]+)\.(?:sources|repo)\b", " ".join(self.files)))

    def __call__(self, command: Command) -> str | None:
        if command.fact:
            return gpu_facts.ANSWERS[command.fact](self, command)
        verb, *words = sent(command)
        if verb == "write":
            self.files[words[0]] = (command.stdin, words[1])
        elif verb == "rm":
            self.digest = ""
        elif verb == "systemd-run":
            self.start(again=True)
        elif verb == "cat":
            return str(self.boot)
        elif verb != "refuse":
            return getattr(self, f"do_{verb.removesuffix('.sh').replace('-', '_')}")(*words)
        return None

    def start(self, *, again: bool = False) -> None:
        """Boot the newest kernel, with the modules that it loads by itself or is told to."""
        if again:
            self.boot, self.kernel = self.boot + 1, self.kernel if self.stuck else self.kernels[-1]
        self.loaded = {}
        versions = self.versions(self.module)
        if self.kernel in versions and (self.gpu.vendor != "intel" or self.knows_card()):
            self.load()
        elif self.gpu.vendor == "nvidia":
            self.loaded["nouveau"] = ""

    def load(self) -> None:
        self.loaded[self.module] = self.versions(self.module)[self.kernel]
        if self.module == "nvidia":
            self.loaded["nvidia_uvm"] = ""

    def knows_card(self) -> bool:
        """Whether the kernel's own driver binds this Intel card."""
        return _numbers(self.kernel) >= _numbers(self.gpu.driver_min)

    def versions(self, module: str) -> dict[str, str]:
        """Versions of a module by kernel. The kernel itself has all but NVIDIA's."""
        if module in {"xe", "i915"}:
            return dict.fromkeys(self.kernels, "")
        if module == "amdgpu":
            dkms = "amdgpu-dkms" in self.packages
            return {kernel: AMDGPU if dkms and kernel in self.headers else "" for kernel in self.kernels}
        built = next((upstream(self.packages[name]) for name in sorted(_DKMS & set(self.packages))), "")
        found = {kernel: built for kernel in self.kernels if built and kernel in self.headers}
        signed = (name for name in self.kernels if any(_signed(entry, name) for entry in self.packages))
        return found | dict.fromkeys(signed, DRIVER)

    @property
    def flavour(self) -> str:
        """Of NVIDIA's loaded module."""
        if "nvidia" not in self.loaded:
            return ""
        return "open" if any("-open" in name for name in self.packages) else "proprietary"

    def devices(self) -> list[PciDevice]:
        driver = next((name for name in ("nvidia", "nouveau", "amdgpu", self.module) if name in self.loaded), "")
        if self.gpu.vendor == "intel" and not self.knows_card():
            driver = ""
        facts = {"id": self.pci_id, "device_class": "030200", "driver": driver, "bar_mib": self.gpu.vram_mib}
        cards = [PciDevice(address=f"0000:{16 + n:02x}:00.0", **facts) for n in range(self.count)]
        return cards if self.pci_id else []

    # ------------------------------------------------------------------------------------------------- package manager

    def simulator(self) -> Simulator:
        found = distribution(self.system, self.kernels)
        for name in self.repositories:
            found |= VENDORS.get((name, self.family), {})
        if self.system in {"rhel-9", "rocky-9"}:
            # dnf hides a module's packages until its stream is enabled, and each stream has one of the two.
            hidden = {"kmod-nvidia-open-dkms": "580-open", "kmod-nvidia-latest-dkms": "580-dkms"}
            found = {n: v for n, v in found.items() if hidden.get(n) in {None, self.stream.rpartition(":")[2]}}
        found = {name: version for name, version in (found | self.offers).items() if name not in self.gone}
        return Simulator(found, self.packages, self.kernels[-1], self.removes)

    def install(self, words: list[str]) -> None:
        if lacking := [word for word in words if not self.simulator().name_of(word)]:
            raise FailedError(f"Unable to find a match: {' '.join(lacking)}")
        for name, version in self.simulator().coming(words).items():
            self.packages[name] = stored(version) if self.family == "el" else version
            if found := re.match(r"(?:linux-headers|kernel-devel)-(\d.*)", name):
                self.headers.append(found[1])
            elif name == "kernel-devel-matched":
                self.headers.append(self.kernels[-1])
            elif name == f"linux-image-{HWE}":
                self.kernels.append(HWE)
                self.packages["linux-image-generic-hwe-24.04"] = "1-1"
            self.programs |= {name} & {"gpg", "curl"}

    def do_packages(self, _timeout: str, *names: str) -> None:
        self.lists = True
        self.install(list(names))

    def do_repository_deb(self, *words: str) -> None:
        assert {"gpg", "curl"} <= self.programs
        self.do_repository_rpm(*words)

    def do_repository_rpm(self, _url: str, _key: str, fingerprints: str, sha256: str, *place: str) -> None:
        keyring, path, text, *aside = place
        self.others = {other: file for other, file in self.others.items() if other not in aside}
        self.keys[keyring] = fingerprints or "0" * 40
        self.checksums[keyring] = sha256
        self.files[path] = (text, "644")

    def do_refresh_deb(self, _timeout: str) -> None:
        self.lists = True

    def do_refresh_rpm(self, _timeout: str, stream: str, *names: str) -> None:
        self.lists, self.stream = True, stream or self.stream
        self.install(list(names))

    def do_driver_deb(self, _timeout: str, _down: str, _replaced: str, _brought: str, *names: str) -> None:
        self.install(list(names))

    def do_driver_rpm(self, _timeout: str, _replaced: str, locked: str, *names: str) -> None:
        self.install(list(names))
        self.locks |= set(locked.split())

    # ------------------------------------------------------------------------------------------------------- the driver

    def do_load_driver(self, digest: str, modules: str, flavour: str, *how: str) -> str:
        built, unload, _units, kernel = how
        assert modules.split(maxsplit=1)[0] == self.module
        wanted, self.digest = self.versions(self.module), ""
        if self.kernel not in wanted:
            raise FailedError(f"kernel {self.kernel} has no {self.module} module after the installation")
        assert (built == "yes") == (self.gpu.vendor == "amd" or (self.module == "nvidia" and self.family != "ubuntu"))
        if self.module in self.loaded and self.loaded[self.module] != wanted[self.kernel] and unload == "no":
            self.owed = f"{digest} {self.boot} {self.module} is loaded, and cannot be taken out"
            return "reboot needed"
        self.loaded.pop("nouveau", None)
        self.load()
        assert self.flavour == flavour
        if kernel:
            if self.owed.startswith(digest) and str(self.boot) not in self.owed.split():
                raise FailedError(f"rebooted for this driver already, and it still takes a reboot: {kernel}")
            self.owed = f"{digest} {self.boot} {kernel}"
        return ""

    def do_verify_driver(self, digest: str, _units: str) -> None:
        assert {card.driver for card in self.devices()} == {self.module}, "a card without its driver"
        self.digest, self.owed = digest, ""

    def do_cdi(self, _unit: str, count: str) -> None:
        self.cdi = int(count) == self.count

    def do_container_engine(self, engine: str) -> None:
        self.configured.add(engine)

    def do_wired_limit(self, _label: str, _path: str, limit: str, text: str) -> None:
        self.wired = (int(limit), hashlib.sha256(text.encode()).hexdigest())

    def ready(self) -> str:
        """What gpu-ready says of it."""
        return json.dumps({"gpus": [{"uuid": card.address} for card in self.devices()], "problems": []})


def _signed(package: str, kernel: str) -> bool:
    return package.startswith("linux-modules-nvidia-") and package.endswith(kernel)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))
