"""What a pretended host with GPUs says to each fact, in the words of the fact's own command."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tests.roles.gpu_archive import stored

_UNITS = {
    "nvidia-persistenced.service": ("nvidia-persistenced", "nvidia-compute-utils-580-server"),
    "nvidia-dcgm.service": ("datacenter-gpu-manager-4-core",),
    "nvidia-fabricmanager.service": ("nvidia-fabricmanager", "nvidia-fabricmanager-580"),
}


def _listed(script: str, variable: str = "p") -> list[str]:
    """The words of each loop over `variable`, one loop after the other."""
    return [word for words in re.findall(rf"for {variable} in (.*?); do", script) for word in shlex.split(words)]


def node(box: Any, _: str) -> str:
    name, version, codename = box.names
    lines = [f"id={name}", f"codename={codename}", f"version={version}", "mem_kib=268435456"]
    if box.family == "macos":
        return "\n".join([*lines, "arch=arm64", f"chip={box.gpu.name}"])
    vendor, _, device = box.pci_id.partition(":")
    cards = [f"pci=0x{vendor} 0x{device} 0x030200"] * (box.count if vendor else 0)
    return "\n".join([*lines, "arch=x86_64", "glibc=glibc 2.36", "init=systemd", "flags=avx2", *cards])


def gpu_host(box: Any, command: str) -> str:
    # What stands behind the script: a root, which is empty for the host itself, the module, and patterns.
    _, module, *ask = shlex.split(command.rpartition("' sh ")[2])
    rows: list[tuple[str, ...]] = [
        ("system", *box.names),
        ("architecture", "x86_64"),
        ("boot_id", f"b-{box.boot}"),
        *(("free", mount, "90000") for mount in ("/", "/var", "/boot")),
        ("kernel", box.kernel),
        *(("installed_kernel", kernel) for kernel in box.kernels),
        ("next_kernel", box.kernels[-1]),
        *(("headers", kernel) for kernel in box.headers),
        *(("module_version", kernel, version) for kernel, version in box.versions(module).items()),
        ("secure_boot", "yes" if box.secure_boot else "no"),
        *(_device(card) for card in box.devices()),
        *(("loaded", name, version) for name, version in box.loaded.items()),
        *(("package", name, version, "ii ") for name, version in box.packages.items()),
    ]
    if box.run_file:
        rows.append(("run_file", "yes"))
    if box.flavour:
        rows.append(("flavour", box.flavour))
    if box.lists and ask:
        rows.append(("lists", "yes"))
        rows += [("candidate", name, version) for name, version in candidates(box, ask).items()]
    return "\n".join("\t".join(row) for row in rows)


def _device(card: Any) -> tuple[str, ...]:
    return ("device", card.address, card.id, card.device_class, str(card.bar_mib), "yes", card.driver)


def candidates(box: Any, ask: Iterable[str]) -> dict[str, str]:
    """Those of the asked patterns that its repositories have, for the kernels that count."""
    asked = [entry.replace("{release}", kernel) for entry in ask for kernel in (box.kernel, box.kernels[-1])]
    offers = box.simulator().offers
    return {name: offers[name] for name in asked if name in offers}


def repository_files(box: Any, command: str) -> str:
    paths = _listed(command)
    lines = [f"sha256={_digest(text)} {path}" for path, (text, _) in box.files.items() if path in paths]
    lines += [f"stripped={digest} {path}" for path, digest in box.checksums.items() if path in paths and digest]
    lines += [f"fingerprint={key} {path}" for path, keys in box.keys.items() if path in paths for key in keys.split()]
    lines += [f"missing={name}" for name in ("gpg", "curl") if name in paths and name not in box.programs]
    lines += [f"architecture={'x86_64' if box.family == 'el' else 'amd64'}", f"release={box.names[1]}"]
    for path, (text, _) in (box.files | box.others).items():
        if path.endswith((".sources", ".repo", ".list")):
            lines += [f"file={path}", *(f"|{line}" for line in text.splitlines())]
    return "\n".join(lines)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def simulation(box: Any, command: str) -> str:
    tool = "apt" if "apt-get -s" in command else "dnf"
    assert (tool == "apt") == (box.family != "el")
    names = re.findall(r" install (.*?) </dev/null", command)[0].split()
    globs = shlex.split(re.findall(r"\\n' (.*?) 2>/dev/null", command)[-1])
    simulator = box.simulator()
    return "\n".join(simulator.apt(names, globs) if tool == "apt" else simulator.dnf(names, globs))


def path_states(box: Any, command: str) -> str:
    paths = _listed(command)
    found = [(path, *box.files[path]) for path in paths if path in box.files]
    return "\n".join(f"{mode} root root {len(text)} {_digest(text)} {path}" for path, text, mode in found)


def version_locks(box: Any, _: str) -> str:
    return "\n".join(f"{name}-3:{box.packages[name]}.*" for name in sorted(box.locks))


def ready(box: Any, command: str) -> str:
    lines = [f'marker={{"digest": "{box.digest}", "ready": {box.ready()}}}'] if box.digest else []
    for unit in _listed(command, "u"):
        there = set(_UNITS.get(unit, ())) & set(box.packages) or unit == "gpu-ready.service"
        state = "enabled active oneshot" if box.digest else "disabled inactive oneshot"
        lines.append(f"unit={unit} {state if there else 'not-found inactive'}")
    asks = "/usr/libexec/rackserve/gpu-ready" in box.files and box.module in box.loaded
    return "\n".join([*lines, f"ready={box.ready()}"] if asks else lines)


def reboot_owed(box: Any, _: str) -> str:
    _, boot, reason = (*box.owed.split(" ", 2), "", "", "")[:3]
    return reason if boot == str(box.boot) else ""


def container_toolkit(box: Any, command: str) -> str:
    names = _listed(command)
    # An rpm that is not installed still has its line, with nothing behind its name.
    lines = [f"package={name} {_toolkit_version(box, name)}" for name in names]
    lines.append("unit=enabled active" if box.cdi else "unit= inactive")
    if box.cdi:
        lines += [f"device=nvidia.com/gpu={name}" for name in (*range(box.count), "all")]
    lines += [f"engine={name}" for name in sorted(box.engines)]
    return "\n".join([*lines, *(f"configured={name}" for name in sorted(box.configured))])


def _toolkit_version(box: Any, name: str) -> str:
    version = box.packages.get(name, "")
    return stored(version).partition("-")[0] if box.family == "el" else version


def wired_limit(box: Any, _: str) -> str:
    limit, digest = box.wired
    return f"limit={limit}\nsha256={digest}{f'{chr(10)}loaded=yes' if digest else ''}"


ANSWERS: Mapping[str, Callable[[Any, str], str]] = {
    "NodeFact": node,
    "GpuHost": lambda box, command: (box.look or gpu_host)(box, command),
    "RepositoryFiles": repository_files,
    "Simulation": simulation,
    "PathStates": path_states,
    "VersionLocks": version_locks,
    "Ready": ready,
    "RebootOwed": reboot_owed,
    "Lines": lambda _box, _command: "",
    "ContainerToolkit": container_toolkit,
    "WiredLimit": wired_limit,
}
