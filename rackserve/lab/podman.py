"""One throwaway host as a podman container with systemd in it: for machines on which nspawn cannot be used.

Podman's default privileges, on purpose. With more of them units cannot load credentials; with these, systemd accepts
the sandboxing of a unit and does not enforce it (both measured). Such a host shows the main job, it is no model of a
server: nspawn and virtual machines are.
"""

from __future__ import annotations

import itertools
import os
import re
import resource
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from rackserve.domain.errors import LabError
from rackserve.lab import pci
from rackserve.lab.login import Login
from rackserve.lab.names import LabNames
from rackserve.lab.nspawn import HostFolder
from rackserve.lab.podman_image import ensure_image
from rackserve.lab.shell import attempt, readable_by_all, remove_folder, run
from rackserve.lab.state import NSPAWN, PODMAN, SERVICE_PORT, SSH_PORT, LabHost, LabState, load, save

TOOLS = ("podman", "ssh", "ssh-keygen")
INSTALL = "apt-get install podman slirp4netns openssh-client"
HOST = "h1"
LOOPBACK = "127.0.0.1"
DEPOT = "/srv/lab-depot"
DEPOT_PORT = 8000
# Both are below what machines allow that allow little (a container in a container), and plenty for one host.
_FILES, _PROCESSES = 20000, 32768
_LAST_LINES = 3
_TERMINAL_CODES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07\x1b]*(\x07|\x1b\\)|.)|[\x00-\x08\r]")

# The depot runs in the host itself, over the folder it shares with the machine: so it needs no way back to the machine,
# which each of podman's networks has elsewhere or not at all.
_DEPOT_UNIT = f"""[Unit]
Description=The lab's depot

[Service]
DynamicUser=no
ExecStart=/usr/bin/python3 -m http.server --bind {LOOPBACK} --directory {DEPOT} {DEPOT_PORT}
"""
# pam_loginuid refuses every login where the audit id is set already, as it is below an operator's own session.
_SSH_DROP_IN = """[Unit]
Wants=lab-depot.service

[Service]
ExecStartPre=sed -i "/pam_loginuid/s/required/optional/" /etc/pam.d/sshd
"""
_SSHD_CONFIG = "AuthorizedKeysFile /etc/ssh/lab_authorized_keys\n"


def missing() -> str:
    """What has to be installed for podman to be used, as a sentence; empty if nothing."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"not installed: {', '.join(absent)} ({INSTALL})" if absent else ""


def container(names: LabNames, host: str) -> str:
    """What a host's container is called."""
    return f"{names.prefix}{host}"


def is_podman(names: LabNames) -> bool:
    """Whether this lab is made of containers; a record that cannot be read is not taken for one."""
    try:
        state = load(names.folder)
    except LabError:
        return False
    return state is not None and state.backend == PODMAN


def up(names: LabNames, login: Login, suite: str, progress: Callable[[str], None]) -> None:
    """Make and start the lab's one container, unless it is there; it is up when its SSH answers."""
    state = load(names.folder) or LabState(0, depot_port=DEPOT_PORT, backend=PODMAN)
    if state.backend == NSPAWN:
        raise LabError(f"the lab {names.lab!r} is made of nspawn hosts: `rackserve lab down` first")
    if state.hosts:
        return boot(container(names, HOST))
    # Recorded before anything is made, so that `down` of a killed run knows what to look for.
    save(names.folder, state)
    image = ensure_image(suite, progress)
    progress(f"making {HOST} (Debian {suite}, in podman)")
    host = LabHost(HOST, suite, LOOPBACK, 1, image, ssh_port=_free_port(0), port=_free_port(SERVICE_PORT))
    seed = _write_seed(names, login, host)
    _start(names, host, seed)
    save(names.folder, state.with_host(host))
    return None


def _free_port(wanted: int) -> int:
    """`wanted` if nothing on this machine's loopback listens there, else any that is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, wanted))
        except OSError:
            probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@readable_by_all()
def _write_seed(names: LabNames, login: Login, host: LabHost) -> Path:
    """What the container has beyond its image: login keys, and the depot over the folder the lab fills."""
    folder = HostFolder(names.folder / "hosts" / host.name)
    seed = folder.path / "seed"
    shutil.rmtree(seed, ignore_errors=True)
    files = {
        "etc/ssh/lab_authorized_keys": login.public_key(),
        "etc/ssh/sshd_config.d/lab.conf": _SSHD_CONFIG,
        "etc/systemd/system/lab-depot.service": _DEPOT_UNIT,
        "etc/systemd/system/ssh.service.d/lab.conf": _SSH_DROP_IN,
    }
    for name, text in files.items():
        (seed / name).parent.mkdir(parents=True, exist_ok=True)
        (seed / name).write_text(text)
    key = seed / "etc/ssh/ssh_host_ed25519_key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host.name, "-f", str(key)])
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    login.trust(f"[{host.address}]:{host.ssh_port}", public)
    pci.write_tree(folder.pci, [])
    (names.folder / "depot").mkdir(exist_ok=True)
    return seed


def _start(names: LabNames, host: LabHost, seed: Path) -> None:
    """Start the container in the plainest way that podman takes here; LabError with its words if it takes none."""
    name, words = container(names, host.name), []
    for options in variants():
        argv = create_argv(names, host, options)
        for command in (argv, ["podman", "cp", f"{seed}/.", f"{name}:/"], ["podman", "start", name]):
            done = attempt(command)
            if done.returncode != 0:
                words.append((done.stderr.strip() or f"`{' '.join(command)}` failed").splitlines()[-1])
                break
        else:
            return
        _remove([name])
    raise LabError(f"podman starts no container here: {words[0]}")


def variants() -> Iterator[list[str]]:
    """Options to try one after the other: none; limits that any machine grants; runc, where crun takes no cgroup 1."""
    runtimes = [[], *([["--runtime", "runc"]] if shutil.which("runc") else [])]
    for runtime, limits in itertools.product(runtimes, ([], _limits())):
        yield [*runtime, *limits]


def _limits() -> list[str]:
    """Limits no higher than this process has: root without CAP_SYS_RESOURCE is refused podman's own."""
    options = []
    wanted = (("nofile", resource.RLIMIT_NOFILE, _FILES), ("nproc", resource.RLIMIT_NPROC, _PROCESSES))
    for name, kind, most in wanted:
        own = resource.getrlimit(kind)[1]
        hard = most if own == resource.RLIM_INFINITY else min(most, own)
        options.append(f"--ulimit={name}={hard}:{hard}")
    return options


def create_argv(names: LabNames, host: LabHost, options: list[str]) -> list[str]:
    """The command that makes a host's container; `options` are those that not every machine needs."""
    folder = HostFolder(names.folder / "hosts" / host.name)
    # The machine's own GPUs stay out of sight, as on an nspawn host.
    shown_pci = [f"--volume={folder.pci}:{pci.SYSFS_PCI}:ro"] if pci.SYSFS_PCI.is_dir() else []
    return [
        *("podman", *_runtime_first(options), f"--name={container(names, host.name)}", f"--hostname={host.name}"),
        # systemd speaks to a terminal only, and that is where it says why it does not boot.
        *("--systemd=always", "--tty", "--security-opt=label=disable", *_network()),
        f"--publish={LOOPBACK}:{host.ssh_port}:{SSH_PORT}",
        f"--publish={LOOPBACK}:{host.port}:{host.port}",
        f"--volume={names.folder / 'depot'}:{DEPOT}:ro",
        *shown_pci,
        *(host.base, "/sbin/init"),
    ]


def _runtime_first(options: list[str]) -> list[str]:
    """`create` with its options, `--runtime` being one of podman itself."""
    own = 2 if options[:1] == ["--runtime"] else 0
    return [*options[:own], "create", *options[own:]]


def _network() -> list[str]:
    """Root's default network leaves a bridge and firewall rules behind, slirp4netns is one process per container."""
    return ["--network=slirp4netns"] if os.geteuid() == 0 and shutil.which("slirp4netns") else []


def boot(name: str) -> None:
    """Start a container that stands still; a running one stays as it is."""
    run(["podman", "start", name])


def kill(name: str) -> None:
    """End every process of the container at once; its disk stays."""
    if running(name):
        run(["podman", "kill", "--signal=KILL", name])


def running(name: str) -> bool:
    """Whether the container's first process runs."""
    return attempt(["podman", "inspect", "--format={{.State.Running}}", name]).stdout.strip() == "true"


def last_words(name: str) -> str:
    """The end of what the container's systemd said, for an error message."""
    return readable_end(attempt(["podman", "logs", name]).stdout)


def readable_end(console: str) -> str:
    """The last lines of a console, without what is meant for a terminal and without the words of every such end."""
    lines = [_TERMINAL_CODES.sub("", line).strip() for line in console.splitlines()]
    kept = [line for line in lines if line and line != "Exiting PID 1..."]
    return " / ".join(kept[-_LAST_LINES:]) or "its console is empty"


def sweep(names: LabNames) -> bool:
    """Remove the lab's containers, found by name, and its folder; False if there was nothing."""
    found = run(["podman", "ps", "--all", "--format={{.Names}}", f"--filter=name=^{re.escape(names.prefix)}"]).split()
    _remove(found)
    existed = names.folder.exists()
    remove_folder(names.folder)
    return bool(found) or existed


def _remove(containers: list[str]) -> None:
    if containers:
        run(["podman", "rm", "--force", "--volumes", "--time=0", *containers])
