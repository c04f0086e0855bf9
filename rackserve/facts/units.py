"""A service as it runs: systemd's view, the plan it was started with, the program and the key it really uses."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase

from rackserve.rendering.units import health_units


@dataclass(frozen=True, slots=True)
class UnitState:
    """A unit and its main process.

    `digest` is what the process was started with; `current_program` and `current_key` tell whether it still runs the
    program and the key that are on disk now. `watched`: its health check goes on, and as it is on disk now.
    """

    active: str
    enabled: bool
    needs_reload: bool
    digest: str
    current_program: bool
    current_key: bool
    watched: bool

    def runs(self, digest: str) -> bool:
        """Whether this very plan is being served, with nothing left to do."""
        return (
            self.active == "active"
            and self.enabled
            and not self.needs_reload
            and self.digest == digest
            and self.current_program
            and self.current_key
        )


ABSENT = UnitState(
    active="inactive",
    enabled=False,
    needs_reload=False,
    digest="",
    current_program=False,
    current_key=False,
    watched=False,
)


def parse_unit(lines: Iterable[str]) -> UnitState:
    """Parse `key=value` lines of `systemctl show` and of the process."""
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return UnitState(
        active=values.get("ActiveState", "inactive"),
        # A container's unit is made of its file at every boot, and cannot be enabled beside that.
        enabled=values.get("UnitFileState") in {"enabled", "generated"},
        needs_reload=values.get("NeedDaemonReload") == "yes",
        digest=values.get("RACKSERVE_DIGEST", ""),
        current_program=bool(values.get("exe")) and values.get("exe") == values.get("program"),
        current_key=values.get("key") == "current",
        watched=values.get("watch") == "current",
    )


# What the process whose number is in `$pid` was started with.
_DIGEST = "tr '\\0' '\\n' < /proc/$pid/environ 2>/dev/null | grep '^RACKSERVE_DIGEST='; "


def _on_host(program: str) -> str:
    """Shell that prints the digest of the process `$pid`, and which program it runs."""
    return (
        f'{_DIGEST}program=$(readlink -f {shlex.quote(program)}); echo "program=$program"; '
        # Every Python is the same program: what tells one environment from another are its libraries.
        # What was replaced on disk reads as "PATH (deleted)".
        'if [ -d "$program" ]; then grep -F " $program/" /proc/$pid/maps | grep -qv " (deleted)$" && '
        'echo "exe=$program"; '
        'else echo "exe=$(readlink /proc/$pid/exe)"; fi; '
    )


def _contained() -> str:
    """The same of a container: the unit's process is podman's monitor (conmon), and its child is the server."""
    children = "$(cat /proc/$pid/task/$pid/children 2>/dev/null)"
    return f"for pid in {children}; do {_DIGEST}done; echo exe=image; echo program=image; "


def _watched(unit: str) -> str:
    """Shell that tells whether the health check goes on; systemd may still have its units as they were before."""
    timer, check = map(shlex.quote, health_units(unit))
    return (
        f"systemctl is-active --quiet -- {timer} 2>/dev/null && "
        f"! systemctl show -p NeedDaemonReload --value -- {timer} {check} | grep -q yes && echo watch=current; "
    )


class Unit(FactBase[UnitState]):
    """UnitState of one unit. Reading another user's process and credentials needs root."""

    def command(self, unit: str, program: str | None, key_file: str | None) -> str:
        """Shell that prints systemd's properties and those of the main process.

        program: its file, or a folder that libraries of it are in; None for a server in a container, whose image is
        part of the digest. key_file: None for a server without one.
        """
        quoted = shlex.quote(unit)
        key = "true" if key_file is None else f"cmp -s /run/credentials/{quoted}/api-key {shlex.quote(key_file)}"
        return (
            f"systemctl show -p ActiveState,UnitFileState,NeedDaemonReload,MainPID -- {quoted} 2>/dev/null; "
            f"{_watched(unit)}"
            f"pid=$(systemctl show -p MainPID --value -- {quoted} 2>/dev/null); "
            'if [ "${pid:-0}" != 0 ]; then '
            f"{_contained() if program is None else _on_host(program)}"
            f"{key} && echo key=current; fi; true"
        )

    @staticmethod
    def default() -> UnitState:
        """No such unit."""
        return ABSENT

    def process(self, output: list[str]) -> UnitState:
        """Parse."""
        return parse_unit(output)
