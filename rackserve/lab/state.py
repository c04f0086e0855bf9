"""What a lab remembers of itself, in one JSON file in its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rackserve.domain.errors import LabError
from rackserve.lab.names import LabNames

FILE_NAME = "lab.json"
NSPAWN = "nspawn"
PODMAN = "podman"
SSH_PORT = 22
# The first that planning gives to a service.
SERVICE_PORT = 8001
ROOTS_HOME = "/var/lib/rackserve/lab"


@dataclass(frozen=True, slots=True)
class LabHost:
    """One throwaway host: where this machine reaches it, and the root filesystem or image it stands on.

    gpu_tag, gpu_count: what it pretends to have, empty for nothing. system: what it pretends to run, as in
    "ubuntu-24.04", empty for its own suite.
    """

    name: str
    suite: str
    address: str
    index: int
    base: str
    ssh_port: int = SSH_PORT
    port: int = SERVICE_PORT
    gpu_tag: str = ""
    gpu_count: int = 0
    system: str = ""


@dataclass(frozen=True, slots=True)
class LabState:
    """A lab: its network 10.213.<number>.0/24, its hosts, and the port its depot listens on (0: none yet).

    A lab of podman containers has no network of its own, hence no number: see `rackserve.lab.podman`.
    """

    number: int
    hosts: tuple[LabHost, ...] = ()
    depot_port: int = 0
    backend: str = NSPAWN

    @property
    def gateway(self) -> str:
        """Where hosts find the depot: at the machine's own address in the lab's network, or each within itself."""
        return "127.0.0.1" if self.backend == PODMAN else f"10.213.{self.number}.1"

    @property
    def network(self) -> str:
        """Who may connect to hosts, in CIDR notation; podman lets nobody but this machine reach a container's ports."""
        return "0.0.0.0/0" if self.backend == PODMAN else f"10.213.{self.number}.0/24"

    def listen(self, name: str) -> str:
        """Where services of a host have to listen: podman hands connections to whatever address the container has."""
        return "0.0.0.0" if self.backend == PODMAN else self.host(name).address  # noqa: S104 (published on loopback)

    def address(self, index: int) -> str:
        """The address of the host with this index."""
        return f"10.213.{self.number}.{10 + index}"

    def host(self, name: str) -> LabHost:
        """The host called `name`; LabError with the names there are if it is none of them."""
        for host in self.hosts:
            if host.name == name:
                return host
        known = ", ".join(host.name for host in self.hosts) or "none"
        raise LabError(f"the lab has no host {name!r} (it has {known})")

    def with_host(self, host: LabHost) -> LabState:
        """The same lab with one host more."""
        return replace(self, hosts=(*self.hosts, host))


def lab_name(environ: Mapping[str, str] = os.environ) -> str:
    """The lab meant when none is named."""
    return environ.get("RACKSERVE_LAB", "lab")


def lab_names(name: str | None, environ: Mapping[str, str] = os.environ) -> LabNames:
    """The names of the lab called `name`, kept below RACKSERVE_LAB_HOME."""
    home = Path(environ.get("RACKSERVE_LAB_HOME") or _default_home(environ)).absolute()
    chosen = name or lab_name(environ)
    return LabNames(chosen, home / chosen)


def _default_home(environ: Mapping[str, str]) -> str:
    """Root's labs lie where the machine keeps state, a user's (podman only) where the user does."""
    if os.geteuid() == 0 or "HOME" not in environ:
        return ROOTS_HOME
    return f"{environ.get('XDG_STATE_HOME') or environ['HOME'] + '/.local/state'}/rackserve/lab"


def load(folder: Path) -> LabState | None:
    """The lab's state, or None where there is no lab."""
    file = folder / FILE_NAME
    try:
        data: dict[str, Any] = json.loads(file.read_text())
        hosts = tuple(LabHost(**host) for host in data["hosts"])
        return LabState(data["number"], hosts, data["depot_port"], data.get("backend", NSPAWN))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(
            f"{file} cannot be read ({error}): `rackserve lab down` removes the lab it belongs to"
        ) from error


def save(folder: Path, state: LabState) -> None:
    """Replace the state file in one step, so that a killed run leaves the old state or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FILE_NAME, json.dumps(asdict(state), indent=2) + "\n")


def write_atomically(file: Path, text: str) -> None:
    """Write beside the file and rename over it."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(file)
