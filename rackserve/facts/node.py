"""What a host is and cannot stop being: distribution, CPU, memory, PCI devices. Safe to use in a deploy's body."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from rackserve.domain.node import Node

# Display controllers (VGA, 3D, other) and processing accelerators: the PCI base classes that GPUs come as.
_GPU_CLASSES = ("0x03", "0x12")


def _glibc(said: str) -> str:
    """The version out of `getconf GNU_LIBC_VERSION`, `0` where that says something else."""
    match = re.fullmatch(r"glibc (\d+(?:\.\d+)+)", said.strip())
    return match[1] if match else "0"


def _python(said: str) -> str:
    """Major and minor version out of `python3 --version`, nothing where that says something else."""
    match = re.fullmatch(r"Python (3\.\d{1,2})\.\S+", said.strip())
    return match[1] if match else ""


def parse_node(lines: Iterable[str]) -> Node:
    """Parse `key=value` lines; raises ValueError naming the key that is missing or not understood."""
    values: dict[str, str] = {}
    gpus: list[str] = []
    for line in lines:
        key, _, value = line.partition("=")
        if key == "pci":
            vendor, device, device_class = value.split()
            if device_class.startswith(_GPU_CLASSES):
                gpus.append(f"{vendor.removeprefix('0x')}:{device.removeprefix('0x')}")
        else:
            values[key] = value.strip().strip('"')
    missing = [key for key in ("id", "arch", "mem_kib") if not values.get(key)]
    if missing:
        msg = f"the host did not tell its {', '.join(missing)}"
        raise ValueError(msg)
    return Node(
        distribution=values["id"],
        codename=values.get("codename", ""),
        version=values.get("version", ""),
        architecture=values["arch"],
        glibc=_glibc(values.get("glibc", "")),
        memory_mib=int(values["mem_kib"]) // 1024,
        systemd=values.get("init") == "systemd",
        cpu_flags=frozenset(values.get("flags", "").split()),
        pci_gpus=tuple(sorted(gpus)),
        chip=values.get("chip", ""),
        python=_python(values.get("python", "")),
    )


class NodeFact(FactBase[Node | None]):
    """The Node of a host, in one round trip."""

    def command(self) -> str:
        """Shell that prints one key=value line per property."""
        return (
            'if [ "$(uname -s)" = Darwin ]; then echo id=macos; echo "version=$(sw_vers -productVersion)"; '
            'echo "arch=$(uname -m)"; echo "mem_kib=$(( $(sysctl -n hw.memsize) / 1024 ))"; '
            'echo "chip=$(sysctl -n machdep.cpu.brand_string)"; exit 0; fi; '
            '[ -r /etc/os-release ] && . /etc/os-release; echo "id=$ID"; echo "codename=${VERSION_CODENAME:-}"; '
            'echo "version=${VERSION_ID:-}"; '
            'echo "arch=$(uname -m)"; echo "glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null)"; '
            "echo \"mem_kib=$(awk '/^MemTotal:/ {print $2}' /proc/meminfo)\"; "
            'echo "init=$(cat /proc/1/comm 2>/dev/null)"; '
            'echo "python=$(/usr/bin/python3 -I --version 2>/dev/null)"; '
            "echo \"flags=$(grep -m1 -E '^(flags|Features)' /proc/cpuinfo | cut -d: -f2-)\"; "
            'for d in /sys/bus/pci/devices/*; do [ -r "$d/class" ] && '
            'echo "pci=$(cat "$d/vendor") $(cat "$d/device") $(cat "$d/class")"; done; true'
        )

    @staticmethod
    def default() -> Node | None:
        """Nothing known: the host could not be read."""
        return None

    def process(self, output: list[str]) -> Node:
        """Parse, with pyinfra's own error so that only this host fails."""
        try:
            return parse_node(output)
        except ValueError as error:
            raise FactProcessError(str(error)) from error
