"""A lab: throwaway Debian hosts with a real systemd, SSH, apt and an address of their own, on this one machine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

from rackserve.domain.errors import InputError, LabError, Problem
from rackserve.lab import base, cgroups, depot, gpu, login, network, nspawn, pci, podman, snapshots
from rackserve.lab.gpu import GpuChoice
from rackserve.lab.locks import locked
from rackserve.lab.login import Login
from rackserve.lab.nspawn import HostFolder
from rackserve.lab.shell import require_machine
from rackserve.lab.state import LabHost, LabState, lab_names, load, save

MAX_HOSTS = 100
BOOT_SECONDS = 60.0
# A supervisor needs a moment before its host counts as running; after this, a host that does not run has failed.
START_SECONDS = 5.0
SSH_FAILED = 255


def _silent(_: str) -> None:
    """Progress nobody reads."""


class Lab:
    """The lab called `name` (default: RACKSERVE_LAB, else "lab"), which need not exist yet."""

    def __init__(self, name: str | None = None) -> None:
        self.names = lab_names(name)
        self.login = Login(self.names.folder)
        self.depot_dir = self.names.folder / "depot"
        self._depot_pid = self.names.folder / "depot.pid"

    def up(
        self,
        count: int = 1,
        suite: str = "bookworm",
        progress: Callable[[str], None] = _silent,
        gpus: GpuChoice | None = None,
    ) -> list[LabHost]:
        """Bring hosts h1 to h<count> up and return all hosts once they answer; what is up already stays as it is.

        gpus: what new hosts pretend to have.
        """
        if not 1 <= count <= MAX_HOSTS:
            raise InputError([Problem(f"{count} hosts", key="--hosts", hint=f"1 to {MAX_HOSTS}")])
        if self._in_podman():
            raise LabError(f"the lab {self.names.lab!r} is made of podman containers: `rackserve lab down` first")
        require_machine()
        with self._locked():
            root = base.ensure_base(suite, progress)
            state = self._ready_network()
            self._start_depot(state)
            wanted = [f"h{index}" for index in range(1, count + 1)]
            present = {host.name for host in state.hosts}
            for index, name in enumerate(wanted, start=1):
                if name not in present:
                    progress(f"making {name} (Debian {suite}{f', {gpus}' if gpus else ''})")
                    host = LabHost(name, suite, state.address(index), index, str(root))
                    self._create(gpus.of(host) if gpus else host, gpus)
            hosts = self.hosts()
            for host in hosts:
                self._boot(host)
            for host in hosts:
                self.wait(host.name)
                progress(f"{host.name} is up at {host.address}")
        return hosts

    def _in_podman(self) -> bool:
        """Whether the hosts are containers, as a demo makes them where nspawn cannot be used."""
        return podman.is_podman(self.names)

    def _locked(self) -> AbstractContextManager[int]:
        return locked(f"lab-{self.names.digest}", wait=False)

    def _ready_network(self) -> LabState:
        """The lab's state with its network in place; a lab that is not recorded starts from nothing."""
        state = load(self.names.folder)
        if state is None:
            self._sweep()
            state = LabState(network.claim(self.names))
            save(self.names.folder, state)
        network.ensure(self.names, state)
        return state

    def _create(self, host: LabHost, gpus: GpuChoice | None) -> None:
        """Make a host's disk, then record it: a run killed in between leaves an unrecorded folder, made again later."""
        host_key = nspawn.create_disk(host, self.folder(host.name), self.login.public_key())
        if gpus is not None:
            gpu.provide(self.names.folder, self.depot_dir, self.depot_url, gpus.plan(host))
            gpu.furnish(self.names.folder, self.folder(host.name), self.depot_url, gpus.plan(host), host)
        self.login.trust(host.address, host_key)
        save(self.names.folder, self.state().with_host(host))

    def _boot(self, host: LabHost) -> None:
        if not cgroups.running(self.names.cgroup(host.name)):
            network.connect(self.names, self.state(), host)
            nspawn.boot(host, self.folder(host.name), self.names.netns(host.name), self.names.cgroup(host.name))

    def state(self) -> LabState:
        """The lab's state; LabError if there is no such lab."""
        state = load(self.names.folder)
        if state is None:
            raise LabError(f"there is no lab {self.names.lab!r}: make one with `rackserve lab up`")
        return state

    def folder(self, name: str) -> HostFolder:
        """Where the host's files lie on the machine."""
        return HostFolder(self.names.folder / "hosts" / name)

    def exists(self) -> bool:
        """Whether the lab has been made and not taken down."""
        return load(self.names.folder) is not None

    def hosts(self) -> list[LabHost]:
        """The lab's hosts, running or not; none where there is no lab."""
        state = load(self.names.folder)
        return list(state.hosts) if state else []

    def address(self, name: str) -> str:
        """The host's address."""
        return self.state().host(name).address

    def condition(self, name: str) -> str:
        """Say "up" if the host's SSH answers, "booting" if only its processes run, "off" if not even those."""
        if not self._running(name):
            return "off"
        return "up" if login.answers(self.state().host(name)) else "booting"

    def _running(self, name: str) -> bool:
        if self._in_podman():
            return podman.running(podman.container(self.names, name))
        return cgroups.running(self.names.cgroup(name))

    def ssh(
        self,
        name: str,
        command: str,
        *,
        check: bool = True,
        user: str = "root",
        input: str = "",  # noqa: A002  the name subprocess.run has for it
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on a host; with `check`, an exit code other than 0 is a LabError."""
        done = self.login.run(self.state().host(name), command, user=user, text=input, timeout=timeout)
        if check and done.returncode != 0:
            words = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
            raise LabError(f"{name}: `{command}` ended with exit code {done.returncode}: {words}")
        return done

    def boot_id(self, name: str) -> str:
        """Changes with every boot of the host."""
        return self.ssh(name, "cat /proc/sys/kernel/random/boot_id", timeout=BOOT_SECONDS).stdout.strip()

    def wait(self, name: str, timeout: float = BOOT_SECONDS) -> None:
        """Return once the host lets root in and its systemd has finished starting."""
        host, begun = self.state().host(name), time.monotonic()
        while time.monotonic() - begun < timeout:
            if login.answers(host):
                done = self.login.run(host, "systemctl is-system-running --wait", timeout=timeout)
                if done.returncode != SSH_FAILED and done.stdout.strip() in ("running", "degraded"):
                    return
            elif time.monotonic() - begun > START_SECONDS and self.condition(name) == "off":
                break
            time.sleep(0.05)
        words = self._last_words(name)
        raise LabError(f"{name} did not come up within {time.monotonic() - begun:.0f} s; its console ends: {words}")

    def _last_words(self, name: str) -> str:
        if self._in_podman():
            return podman.last_words(podman.container(self.names, name))
        return nspawn.last_words(self.folder(name))

    def kill(self, name: str) -> None:
        """Cut the host's power: every process ends at once, its disk stays as it is at that moment."""
        self.state().host(name)
        if self._in_podman():
            podman.kill(podman.container(self.names, name))
        else:
            cgroups.kill(self.names.cgroup(name))

    def boot(self, name: str, timeout: float = BOOT_SECONDS) -> None:
        """Switch a host on again and wait for it; one that runs already is left alone."""
        host = self.state().host(name)
        if self._in_podman():
            podman.boot(podman.container(self.names, name))
        else:
            require_machine()
            network.ensure(self.names, self.state())
            self._boot(host)
        self.wait(name, timeout)

    def reboot(self, name: str, timeout: float = BOOT_SECONDS) -> None:
        """Let the host restart itself, and return once it is up as another boot."""
        before, begun = self.boot_id(name), time.monotonic()
        self.ssh(name, "systemctl reboot", check=False, timeout=timeout)
        while time.monotonic() - begun < timeout:
            now = self.ssh(name, "cat /proc/sys/kernel/random/boot_id", check=False, timeout=timeout)
            if now.returncode == 0 and now.stdout.strip() != before:
                return self.wait(name, timeout)
            time.sleep(0.1)
        raise LabError(f"{name} did not reboot within {timeout:g} s")

    def snapshot(self, name: str, label: str) -> None:
        """Keep the host's disk as it is now; the host stands still for as long as that takes."""
        self.state().host(name)
        with cgroups.frozen(self.names.cgroup(name)):
            snapshots.keep(self.folder(name), label)

    def restore(self, label: str, *names: str) -> None:
        """Cut the power of these hosts, and return once they are up with the disk they had at the snapshot."""
        for name in names:
            self.kill(name)
            snapshots.put_back(self.folder(name), label)
        for name in names:
            self._boot(self.state().host(name))
        for name in names:
            self.wait(name)

    def set_pci(self, name: str, devices: Iterable[pci.PciDevice]) -> None:
        """Make the host's PCI bus show exactly these devices, at once."""
        self.state().host(name)
        pci.write_tree(self.folder(name).pci, devices)

    def set_modules(self, name: str, versions: Mapping[str, str]) -> None:
        """Make these kernel modules, and no others, look loaded on the host, each with its version, at once."""
        self.state().host(name)
        pci.write_modules(self.folder(name).modules, versions)

    @property
    def depot_url(self) -> str:
        """Where hosts fetch what lies in `depot_dir`."""
        state = self.state()
        return f"http://{state.gateway}:{state.depot_port}"

    def depot_running(self) -> bool:
        """Whether the depot serves."""
        if self._in_podman():
            return any(self._running(host.name) for host in self.hosts())
        return depot.running(self._depot_pid)

    def depot_stop(self) -> None:
        """Let the mirror die."""
        depot.stop(self._depot_pid)

    def depot_start(self) -> None:
        """Bring the mirror back, at the same URL."""
        self._start_depot(self.state())

    def _start_depot(self, state: LabState) -> None:
        log = self.names.folder / "depot.log"
        port = depot.start(state.gateway, state.depot_port, self.depot_dir, self._depot_pid, log)
        if port != state.depot_port:
            save(self.names.folder, replace(self.state(), depot_port=port))

    def down(self) -> bool:
        """Remove the lab and all it made, whole or half-made; False if there was nothing to remove."""
        if self._in_podman():
            return podman.sweep(self.names)
        require_machine()
        with self._locked():
            return self._sweep()

    def _sweep(self) -> bool:
        """Remove everything that carries this lab's names; no record of it is needed."""
        groups = cgroups.with_prefix(self.names.prefix)
        namespaces = network.namespaces(self.names.prefix)
        found = bool(groups or namespaces) or self.names.bridge in network.links() or self.names.folder.exists()
        for group in groups:
            cgroups.kill(group)
        depot.stop(self._depot_pid)
        network.remove(self.names, when_last=nspawn.remove_runtime_folder)
        nspawn.remove_traces(self.names.folder)
        return found
