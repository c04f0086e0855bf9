"""Vagrant and libvirt for a test: isolated from the operator's own, and gone afterwards."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KVM = Path("/dev/kvm")
_TABLES = ("filter", "nat", "mangle")
# Started by hand, libvirtd finds /dev/kvm by root's rights, then sees that its guests have none, and asks QEMU for its
# abilities again at every call: 4 seconds each, minutes in all. A file that is no device gives the same answer twice;
# but libvirt cannot carry what is mounted there into a guest's own /dev, so guests get none.
_WITHOUT_KVM = (
    """mount --bind "$1/no-kvm" /dev/kvm && mount --bind "$1/qemu.conf" /etc/libvirt/qemu.conf && exec libvirtd"""
)


def call(
    *command: str, environment: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run in the repository; the result whatever the exit code, with everything it said in `stdout`."""
    return subprocess.run(  # noqa: PLW1510 (the tests look at the exit code)
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )


def virsh(*arguments: str) -> subprocess.CompletedProcess[str]:
    return call("virsh", "--quiet", "--connect", "qemu:///system", *arguments)


@contextmanager
def libvirt(folder: Path) -> Iterator[None]:
    """libvirt's daemon: the running one, else one for the time of the test."""
    if virsh("list").returncode == 0:
        yield
        return
    before = _tables()
    with ExitStack() as cleanup:
        cleanup.callback(_clean_firewall, before)
        cleanup.enter_context(_daemon(folder, "virtlogd"))
        cleanup.enter_context(_daemon(folder, *_libvirtd(folder)))
        deadline = time.monotonic() + 60
        while virsh("list").returncode != 0:
            assert time.monotonic() < deadline, (folder / "libvirtd.log").read_text()
            time.sleep(0.5)
        pools = virsh("pool-list", "--all", "--name").stdout.split()
        yield
        virsh("net-destroy", "vagrant-libvirt")
        virsh("net-undefine", "vagrant-libvirt")
        if "default" not in pools:
            virsh("pool-destroy", "default")
            virsh("pool-undefine", "default")


def _libvirtd(folder: Path) -> list[str]:
    if not KVM.exists() or stat.S_IMODE(KVM.stat().st_mode) & 0o060:
        return ["libvirtd"]
    (folder / "no-kvm").touch(mode=0o600)
    (folder / "qemu.conf").write_text("namespaces = []\n")
    return ["unshare", "--mount", "sh", "-c", _WITHOUT_KVM, "libvirtd", str(folder)]


@contextmanager
def _daemon(folder: Path, *command: str) -> Iterator[None]:
    with (
        (folder / f"{Path(command[0]).name.replace('unshare', 'libvirtd')}.log").open("w") as log,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def added_box(name: str, file: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """The box in Vagrant's folder of `environment`; its image goes from libvirt's pool with it."""
    added = call("vagrant", "box", "add", "--name", name, str(file), environment=environment)
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
