"""Lab hosts with simulated GPUs: what they pretend to be, and the stand-in repositories that their drivers come from.

Repositories are made from the driver plan, with its names and versions, and signed with a key of the lab; hosts' data
names a catalogue file in which the vendors' entries point to them. Everything on the host's side is the real thing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError, Problem, suggestion
from rackserve.domain.host import Host
from rackserve.domain.node import Node
from rackserve.domain.repository import Repository as Entry
from rackserve.lab import gpu_host
from rackserve.lab.elf import require_compiler
from rackserve.lab.gpu_packages import ARCHIVE, archive_packages, driver_packages, home, toolkit_packages
from rackserve.lab.nspawn import HostFolder
from rackserve.lab.repository import KEY_FILE, Package, Repository, SigningKey
from rackserve.lab.shell import readable_by_all
from rackserve.lab.state import LabHost, write_atomically
from rackserve.planning.driver_plan import DriverPlan
from rackserve.planning.node_driver import driver_for

CATALOG = "gpus.toml"
_VENDOR = "vendor"
_ARCHITECTURE = "x86_64"
_SYSTEMS = {"bookworm": "debian-12", "trixie": "debian-13", "forky": "debian-forky"}
_KEYRING = "/usr/share/keyrings/lab-archive.asc"
_SOURCE = "Types: deb\nURIs: {url}\nSuites: /\nSigned-By: {keyring}\n"


@dataclass(frozen=True, slots=True)
class GpuChoice:
    """What new hosts pretend to have. system: what they pretend to run, empty for their own suite."""

    tag: str
    count: int = 1
    system: str = ""

    def __post_init__(self) -> None:
        """Refuse what there is none of."""
        known = [name for name, entry in load_catalog().gpus.items() if entry.vendor in {"nvidia", "amd", "intel"}]
        if self.tag not in known:
            raise InputError(
                [Problem(f"no GPU {self.tag!r} to pretend", key="--gpu", hint=suggestion(self.tag, known))]
            )
        if not 1 <= self.count <= gpu_host.MAX_GPUS:
            raise InputError([Problem(f"{self.count} GPUs", key="--gpus", hint=f"1 to {gpu_host.MAX_GPUS}")])

    def __str__(self) -> str:
        """For progress."""
        return f"{self.count} x {self.tag}{f' under {self.system}' if self.system else ''}"

    def of(self, host: LabHost) -> LabHost:
        """The host with this choice."""
        return replace(host, gpu_tag=self.tag, gpu_count=self.count, system=self.system)

    def plan(self, host: LabHost) -> DriverPlan:
        """How rackserve would drive it, with the catalogue as it is. Raises InputError where it would not."""
        return plan_of(self.of(host))


def system_of(host: LabHost) -> str:
    """What a host says it runs, in the catalogue's words."""
    return host.system or _SYSTEMS[host.suite]


def plan_of(host: LabHost, engines: Iterable[str] = ("docker",)) -> DriverPlan:
    """The driver plan of a host with simulated GPUs, and with all that may be asked for besides."""
    distribution, _, version = system_of(host).partition("-")
    node = Node(
        distribution=distribution,
        codename=version,
        version=version,
        architecture=_ARCHITECTURE,
        glibc="0",
        memory_mib=0,
        systemd=True,
        cpu_flags=frozenset(),
        pci_gpus=(),
    )
    catalog = load_catalog()
    nvidia = catalog.gpus[host.gpu_tag].vendor == "nvidia"
    settings = {"name": host.name, "gpu_tag": host.gpu_tag, "gpu_count": host.gpu_count}
    wanted = Host.model_validate(settings | ({"container_engines": list(engines), "dcgm": True} if nvidia else {}))
    plan = driver_for(wanted, catalog.gpus[host.gpu_tag], node, catalog)
    if not isinstance(plan, DriverPlan):
        raise InputError(plan)
    return plan


def provide(folder: Path, depot: Path, depot_url: str, plan: DriverPlan, version: str | None = None) -> None:
    """Publish a plan's packages in the lab's depot, and the catalogue that points there.

    version: of the driver's packages, in place of the plan's.
    """
    require_compiler()
    key = SigningKey(folder / "vendor-key")
    kernel = os.uname().release
    contents: dict[str, list[Package]] = {ARCHIVE: list(archive_packages(plan, kernel))}
    for package in (*driver_packages(plan, kernel, version), *toolkit_packages(plan)):
        contents.setdefault(home(plan, package.name), []).append(package)
    suites = {entry.name: (entry.suite, *entry.components[:1]) for entry in plan.repositories}
    for name, packages in contents.items():
        repository = Repository(depot / _VENDOR / name, key, *suites.get(name, ()))
        for package in packages:
            repository.add(package)
        repository.publish()
    key.close()
    _write_catalog(folder / CATALOG, depot_url, key.fingerprint, plan)


@readable_by_all()
def furnish(folder: Path, host_folder: HostFolder, depot_url: str, plan: DriverPlan, host: LabHost) -> None:
    """Give a host its simulated cards, and the distribution's stand-in archive to install from."""
    gpu_host.furnish(host_folder, plan, host.system)
    root = host_folder.upper
    source = root / "etc/apt/sources.list.d/lab-archive.sources"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(_SOURCE.format(url=f"{depot_url}/{_VENDOR}/{ARCHIVE}/", keyring=_KEYRING))
    keyring = root / _KEYRING.lstrip("/")
    keyring.parent.mkdir(parents=True, exist_ok=True)
    keyring.write_text(SigningKey(folder / "vendor-key").armored)


def _write_catalog(file: Path, depot_url: str, fingerprint: str, plan: DriverPlan) -> None:
    """Entries of the vendors' repositories in the operator's own format, pointing into the depot; others stay."""
    entries = load_catalog().drivers.repositories.values()
    planned = {entry.name for entry in plan.repositories}
    wanted = [entry for entry in entries if entry.name in planned and plan.system in entry.systems]
    written = {entry.id: "\n".join(_entry(entry, depot_url, fingerprint)) for entry in wanted}
    if file.exists():
        old = (f"[repositories.{text}".strip() for text in file.read_text().split("[repositories.")[1:])
        written = {text.partition("]")[0].partition("[repositories.")[2].strip('"'): text for text in old} | written
    write_atomically(file, "\n\n".join(written.values()) + "\n")


def _entry(entry: Entry, depot_url: str, fingerprint: str) -> Iterator[str]:
    base = f"{depot_url}/{_VENDOR}/{entry.name}/"
    yield f'[repositories."{entry.id}"]'
    for key, value in entry.model_dump(
        mode="json", exclude={"id", "architectures", "key_sha256"}, exclude_none=True
    ).items():
        stated = {"url": base, "key_url": f"{base}{KEY_FILE}", "fingerprints": [fingerprint]}.get(key, value)
        yield f"{key} = {json.dumps(stated)}"
    words = ", ".join(f"{name} = {json.dumps(word)}" for name, word in entry.architectures.items())
    yield f"architectures = {{ {words} }}"
