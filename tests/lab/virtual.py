"""Vagrant and libvirt for a test: isolated from the operator's own, and gone afterwards."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KVM = Path("/dev/kvm")
_TABLES = ("filter", "nat", "mangle")
# All of libvirt's processes are in a namespace of their own, which the kernel ends with the test, however that ends:
# QEMU and dnsmasq make themselves daemons, and would outlive it. The shell is init there and collects them.
_NAMESPACE = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"),
)
_DAEMONS = 'virtlogd >"$1/virtlogd.log" 2>&1 & libvirtd >"$1/libvirtd.log" 2>&1 & wait'
# Started by hand, libvirtd finds /dev/kvm by root's rights, then sees that its guests have none, and asks QEMU for its
# abilities again at every call: 4 seconds each, minutes in all. A file that is no device gives the same answer twice;
# but libvirt cannot carry what is mounted there into a guest's own /dev, so guests get none.
_WITHOUT_KVM = 'mount --bind "$1/no-kvm" /dev/kvm && mount --bind "$1/qemu.conf" /etc/libvirt/qemu.conf && { '
_ANSWERS_S = 120
# Deadlines of the steps, two to five times what they take on two cores that emulate and have other work. A job has time
# for all of them: tools/suite/jobs.py.
BUILD_S = 2100
BOX_S = 450
ADD_S = 300
UP_S = 500
RUN_S = 400
DESTROY_S = 240
STEPS_S = (BUILD_S, BOX_S, _ANSWERS_S, ADD_S, UP_S, RUN_S, RUN_S, RUN_S, DESTROY_S)
PROGRAMS = ("libvirtd", "virtlogd", "virsh", "qemu-system-x86_64", "setpriv", "unshare")


def call(
    *command: str, environment: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run in the repository; the result whatever the exit code, with everything it said in `stdout`.

    Past its time, or where the test is interrupted, it is ended with all that it has started.
    """
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=timeout)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, said)


def virsh(*arguments: str) -> subprocess.CompletedProcess[str]:
    return call("virsh", "--quiet", "--connect", "qemu:///system", *arguments)


@contextmanager
def libvirt(folder: Path) -> Iterator[None]:
    """libvirt's daemon: the running one, else one for the time of the test. Machines made meanwhile go."""
    with ExitStack() as cleanup:
        if virsh("list").returncode != 0:
            cleanup.callback(_clean_firewall, _tables())
            cleanup.enter_context(_daemons(folder))
        for kind, remove in _REMOVED.items():
            cleanup.callback(_remove_new, kind, set(_names(kind)), remove)
        yield


# In this order's reverse: what `virsh ...-list` calls them, and how one that was not there before goes.
_REMOVED = {
    ("pool-list", "--all"): (("pool-destroy",), ("pool-undefine",)),
    ("net-list", "--all"): (("net-destroy",), ("net-undefine",)),
    ("list", "--all"): (("destroy",), ("undefine", "--remove-all-storage")),
}


def _names(kind: tuple[str, ...]) -> list[str]:
    return virsh(*kind, "--name").stdout.split()


def _remove_new(kind: tuple[str, ...], before: set[str], remove: tuple[tuple[str, ...], ...]) -> None:
    for name in set(_names(kind)) - before:
        for verb, *options in remove:
            virsh(verb, name, *options)


@contextmanager
def _daemons(folder: Path) -> Iterator[None]:
    script = _DAEMONS
    if KVM.exists() and not stat.S_IMODE(KVM.stat().st_mode) & 0o060:
        (folder / "no-kvm").touch(mode=0o600)
        (folder / "qemu.conf").write_text("namespaces = []\n")
        script = f"{_WITHOUT_KVM}{_DAEMONS}; }}"
    command = [*_NAMESPACE, "sh", "-c", script, "libvirt", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            deadline = time.monotonic() + _ANSWERS_S
            while virsh("list").returncode != 0:
                assert process.poll() is None, (folder / "libvirtd.log").read_text()
                assert time.monotonic() < deadline, (folder / "libvirtd.log").read_text()
                time.sleep(0.5)
            yield
        finally:
            process.kill()


@contextmanager
def added_box(name: str, file: str, environment: Mapping[str, str]) -> Iterator[None]:
    """The box in Vagrant's folder of `environment`; its image goes from libvirt's pool with it."""
    added = call("vagrant", "box", "add", "--name", name, file, environment=environment, timeout=ADD_S)
    assert added.returncode == 0, added.stdout
    try:
        yield
    finally:
        image = name.replace("/", "-VAGRANTSLASH-")
        for volume in re.findall(rf"^ *({re.escape(image)}_\S+)", virsh("vol-list", "default").stdout, re.MULTILINE):
            virsh("vol-delete", "--pool", "default", volume)


def isolated(folder: Path, builds: Path) -> dict[str, str]:
    """An environment in which Vagrant and rackserve keep everything in `folder`, except finished builds."""
    (folder / "cache/rackserve").mkdir(parents=True)
    if builds.is_dir():
        (folder / "cache/rackserve/builds").symlink_to(builds)
    return {
        **os.environ,
        "VAGRANT_HOME": str(folder / "home"),
        "VAGRANT_DOTFILE_PATH": str(folder / "dot"),
        "VAGRANT_NO_COLOR": "1",
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


def _tables() -> set[tuple[str, str]]:
    listed = call("nft", "list", "tables").stdout if shutil.which("nft") else ""
    return {(family, name) for family, name in re.findall(r"^table (\S+) (\S+)$", listed, re.MULTILINE)}


def _clean_firewall(before: set[tuple[str, str]]) -> None:
    """Remove libvirt's chains, and the tables that it made if nobody else uses them by now."""
    for program, family in (("iptables", "ip"), ("ip6tables", "ip6")):
        for table in _TABLES:
            rules = call(program, "-w", "-t", table, "-S").stdout.splitlines()
            for rule in rules:
                if rule.startswith("-A") and "-j LIBVIRT_" in rule and not rule.startswith("-A LIBVIRT_"):
                    call(program, "-w", "-t", table, "-D", *rule.split()[1:])
            chains = [rule.split()[1] for rule in rules if rule.startswith("-N LIBVIRT_")]
            for chain in chains:
                call(program, "-w", "-t", table, "-F", chain)
            for chain in chains:
                call(program, "-w", "-t", table, "-X", chain)
            left = call("nft", "list", "table", family, table).stdout
            if (family, table) not in before and "counter" not in left:
                call("nft", "delete", "table", family, table)
