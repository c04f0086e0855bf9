"""Vagrant's machines: which of them there are, and a model for them where no model hub is reachable."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rackserve.cache import cache_folder
from rackserve.domain.errors import LabError
from rackserve.lab import depot, model
from rackserve.lab.shell import attempt

# What the provider calls the network that it makes for its machines.
NETWORK = "vagrant-libvirt"
_GATEWAY = re.compile(r"<ip address='([0-9.]+)'")


def created(names: tuple[str, ...], environ: Mapping[str, str] = os.environ) -> list[str]:
    """Those of `names` that `vagrant up` has made, read from Vagrant's own records in the current folder.

    pyinfra stops if one machine of an inventory is not there, and asking Vagrant itself takes seconds.
    """
    machines = Path(environ.get("VAGRANT_DOTFILE_PATH", ".vagrant")) / "machines"
    return [name for name in names if any(machines.glob(f"{name}/*/id"))]


def model_data() -> dict[str, Any]:
    """The model to serve and the host data with which it is found: the offered one, else the hub's small one."""
    return model.provided(_folder()) or {"model": model.REAL}


def offer(progress: Callable[[str], None]) -> str:
    """Serve the tiny random model to libvirt's network for Vagrant until `withdraw`; returns the address."""
    folder = _folder()
    if not depot.running(_pid_file()):
        address = gateway()
        folder.mkdir(parents=True, exist_ok=True)
        port = depot.start(address, 0, folder / "depot", _pid_file(), folder / "depot.log")
        model.provide(folder, folder / "depot", f"http://{address}:{port}", tiny=True, progress=progress)
    return str(model.provided(folder)["model_hub"])


def withdraw() -> bool:
    """Stop serving and forget the tiny model; whether there was one."""
    offered = _folder().is_dir()
    depot.stop(_pid_file())
    shutil.rmtree(_folder(), ignore_errors=True)
    return offered


def gateway() -> str:
    """Address of this machine in the network of Vagrant's machines."""
    described = attempt(["virsh", "--connect", "qemu:///system", "net-dumpxml", NETWORK])
    match = _GATEWAY.search(described.stdout)
    if match is None:
        raise LabError(f"libvirt has no network {NETWORK}: `vagrant up` makes it, run that first")
    return match[1]


def _folder() -> Path:
    return cache_folder() / "vagrant"


def _pid_file() -> Path:
    return _folder() / "depot.pid"
