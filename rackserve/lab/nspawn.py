"""One host on the machine's disk: making its writable layer, booting it, reading its console."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path

from rackserve.domain.errors import LabError
from rackserve.lab import cgroups, pci
from rackserve.lab.shell import readable_by_all, remove_folder, run
from rackserve.lab.state import LabHost, write_atomically

# Without NET_ADMIN `nft` and `ip` fail inside; without BPF and PERFMON, IPAddressDeny= and DeviceAllow= of units are
# accepted and silently not enforced.
CAPABILITIES = "CAP_NET_ADMIN,CAP_BPF,CAP_PERFMON"
RUNTIME_FOLDER = Path("/run/systemd")
REBOOT_SECONDS = 1.0
CONSOLE_LINES = 5


@dataclass(frozen=True, slots=True)
class BootPlan:
    """What the supervisor needs to know to run one host."""

    name: str
    overlay: str
    root: str
    sup_cgroups: list[str]
    box_cgroups: list[str]
    nspawn: list[str]
    reboot_seconds: float


@dataclass(frozen=True, slots=True)
class HostFolder:
    """Where a host's disk, console and simulated hardware lie on the machine."""

    path: Path

    @property
    def upper(self) -> Path:
        """The writable layer: what the host has changed on its disk."""
        return self.path / "upper"

    @property
    def work(self) -> Path:
        """What overlayfs needs beside the writable layer."""
        return self.path / "work"

    @property
    def snapshots(self) -> Path:
        """What the host was at earlier moments, by label."""
        return self.path / "snapshots"

    @property
    def pci(self) -> Path:
        """What the host sees as /sys/bus/pci."""
        return self.path / "pci"

    @property
    def modules(self) -> Path:
        """What the host sees as /sys/module."""
        return self.path / "modules"

    @property
    def console(self) -> Path:
        """What the host's systemd printed, boot after boot."""
        return self.path / "console.log"


def nspawn_argv(host: LabHost, root: Path, netns: str, extra: list[str]) -> list[str]:
    """The nspawn command of a host; `extra` are bind arguments."""
    return [
        *("systemd-nspawn", "--quiet", "--boot", f"--directory={root}", f"--machine={host.name}"),
        *("--register=no", "--keep-unit", f"--network-namespace-path=/run/netns/{netns}"),
        *("--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe"),
        *(f"--capability={CAPABILITIES}", "--system-call-filter=bpf"),
        *extra,
    ]


def overlay_options(host: LabHost, folder: HostFolder) -> str:
    """Mount options that put the host's own layer over its base."""
    places = {"lowerdir": Path(host.base), "upperdir": folder.upper, "workdir": folder.work}
    for place in places.values():
        if re.search(r"[,:\\]", str(place)):
            raise LabError(f"{place} has a comma, colon or backslash in it, which overlayfs cannot take: move the lab")
    return ",".join(f"{key}={place}" for key, place in places.items())


@readable_by_all()
def create_disk(host: LabHost, folder: HostFolder, public_key: str) -> str:
    """Make the host's layer with its name and login keys, and return its SSH host key's public part."""
    upper = folder.upper
    for place in (folder.work, folder.path / "root", upper / "etc/ssh", upper / "home"):
        place.mkdir(parents=True, exist_ok=True)
    (upper / "etc/hostname").write_text(f"{host.name}\n")
    (upper / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {host.name}\n")
    _authorize(upper / "root", public_key, 0, 0)
    _authorize(upper / "home/deploy", public_key, *_user_ids(Path(host.base), "deploy"))
    pci.write_tree(folder.pci, [])
    pci.write_modules(folder.modules, {})
    key = upper / "etc/ssh/ssh_host_ed25519_key"
    key.unlink(missing_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host.name, "-f", str(key)])
    return " ".join(key.with_suffix(".pub").read_text().split()[:2])


def _authorize(home: Path, public_key: str, uid: int, gid: int) -> None:
    """Let the lab's key in as the owner of `home`."""
    keys = home / ".ssh/authorized_keys"
    keys.parent.mkdir(parents=True, exist_ok=True)
    keys.write_text(public_key)
    for place, mode in ((home, 0o700), (keys.parent, 0o700), (keys, 0o600)):
        place.chmod(mode)
        os.chown(place, uid, gid)


def _user_ids(base: Path, user: str) -> tuple[int, int]:
    for line in (base / "etc/passwd").read_text().splitlines():
        fields = line.split(":")
        if fields[0] == user:
            return int(fields[2]), int(fields[3])
    raise LabError(f"the base {base} has no user {user}: remove that folder and run `rackserve lab up` again")


def resolver_configuration() -> str:
    """A resolv.conf for hosts: the machine's name servers that can be reached from outside it.

    A caching resolver on a loopback address is the machine's alone; systemd-resolved lists those behind it elsewhere.
    """
    for file in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        with contextlib.suppress(FileNotFoundError):
            lines = [line for line in file.read_text().splitlines() if line.startswith(("nameserver ", "search "))]
            reachable = [line for line in lines if not re.match(r"nameserver\s+(127\.|::1)", line)]
            if any(line.startswith("nameserver") for line in reachable):
                return "\n".join(reachable) + "\n"
    return ""


@readable_by_all()
def boot(host: LabHost, folder: HostFolder, netns: str, cgroup: str) -> None:
    """Start the host's supervisor, detached from this process; the host is up when its SSH answers."""
    if not Path(host.base).is_dir():
        raise LabError(f"{host.name}'s base {host.base} is gone: `rackserve lab down`, then `rackserve lab up`")
    RUNTIME_FOLDER.mkdir(exist_ok=True)
    (folder.upper / "etc/resolv.conf").write_text(resolver_configuration())
    groups = cgroups.create(cgroup)
    root = folder.path / "root"
    places = ((folder.pci, pci.SYSFS_PCI), (folder.modules, pci.SYSFS_MODULES))
    binds = [word for place, sysfs in places for word in pci.bind_arguments(place, sysfs, writable=bool(host.gpu_tag))]
    plan = BootPlan(
        name=host.name,
        overlay=overlay_options(host, folder),
        root=str(root),
        sup_cgroups=[str(group / "sup") for group in groups],
        box_cgroups=[str(group / "box") for group in groups],
        nspawn=nspawn_argv(host, root, netns, binds),
        reboot_seconds=REBOOT_SECONDS,
    )
    plan_file = folder.path / "boot.json"
    write_atomically(plan_file, dumps(asdict(plan), indent=2))
    supervisor = Path(__file__).with_name("supervisor.py")
    with folder.console.open("a") as console:
        subprocess.run(
            [
                *("setsid", "--fork", "unshare", "--mount", "--propagation", "private"),
                *(sys.executable, "-I", "-S", str(supervisor), str(plan_file)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            check=True,
        )


def last_words(folder: HostFolder) -> str:
    """The end of the host's console, for an error message."""
    try:
        lines = folder.console.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "it was never booted"
    return " / ".join(lines[-CONSOLE_LINES:]) or "its console is empty"


def remove_traces(folder: Path) -> None:
    """Remove a lab's folder, and the folder of all labs once it is empty."""
    remove_folder(folder)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def remove_runtime_folder() -> None:
    """Remove the folder that nspawn wanted, and with it what hosts mount there: hosts of no other lab may be left."""
    with contextlib.suppress(OSError):
        RUNTIME_FOLDER.rmdir()
