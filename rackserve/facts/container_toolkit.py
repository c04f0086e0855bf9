"""What containers on a host see of NVIDIA's GPUs: the CDI specification, and the engines that were told of it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase

# Where each engine keeps what nvidia-ctk writes; newer releases give containerd a file of its own.
_ENGINE_FILES = {
    "docker": ("/etc/docker/daemon.json",),
    "containerd": ("/etc/containerd/conf.d/99-nvidia.toml", "/etc/containerd/config.toml"),
}


@dataclass(frozen=True, slots=True)
class ToolkitState:
    """versions: of installed packages. refreshing: the unit that keeps the specification fresh is enabled and active.

    devices: names of GPUs in the specification. stale: a specification in /etc/cdi hides the fresh one in /run.
    installed, configured: engines that are there, and those that know of the GPUs.
    """

    versions: dict[str, str]
    refreshing: bool
    devices: tuple[str, ...]
    stale: bool
    installed: frozenset[str]
    configured: frozenset[str]


def parse_toolkit(lines: Iterable[str]) -> ToolkitState:
    """Parse `key=value` lines; keys may repeat."""
    values: dict[str, list[str]] = {}
    for line in lines:
        key, separator, value = line.partition("=")
        if separator:
            values.setdefault(key, []).append(value)
    packages = (entry.partition(" ") for entry in values.get("package", []))
    return ToolkitState(
        versions={name: version for name, _, version in packages if version},
        refreshing=values.get("unit") == ["enabled active"],
        devices=tuple(values.get("device", [])),
        stale="stale" in values,
        installed=frozenset(values.get("engine", [])),
        configured=frozenset(values.get("configured", [])),
    )


class ContainerToolkit(FactBase[ToolkitState]):
    """ToolkitState of a host with apt or dnf."""

    def command(self, packages: list[str], unit: str) -> str:
        """Shell that asks package manager, systemd, nvidia-ctk and the engines' files."""
        names = " ".join(shlex.quote(name) for name in packages)
        query = (
            f"for p in {names}; do "
            "v=$(dpkg-query -W -f '${db:Status-Abbrev} ${Version}' \"$p\" 2>/dev/null | sed -n 's/^ii *//p'); "
            '[ -n "$v" ] || v=$(rpm -q --qf \'%{VERSION}\' "$p" 2>/dev/null) || v=; '
            'echo "package=$p $v"; done; '
        )
        engines = "".join(
            f'command -v {engine} >/dev/null 2>&1 && echo "engine={engine}"; '
            f"grep -qs nvidia-container-runtime {' '.join(files)} && echo configured={engine}; "
            for engine, files in _ENGINE_FILES.items()
        )
        quoted = shlex.quote(unit)
        return (
            f'{query}echo "unit=$(systemctl is-enabled {quoted} 2>/dev/null) '
            f'$(systemctl is-active {quoted} 2>/dev/null)"; '
            "nvidia-ctk --quiet cdi list 2>/dev/null | sed -n 's/^nvidia.com/device=nvidia.com/p'; "
            f"[ ! -e /etc/cdi/nvidia.yaml ] || echo stale=yes; {engines}true"
        )

    @staticmethod
    def default() -> ToolkitState:
        """Nothing there."""
        return parse_toolkit(())

    def process(self, output: list[str]) -> ToolkitState:
        """Parse."""
        return parse_toolkit(output)
