"""What rackserve has written down about a host's driver, and what gpu-ready says of it now."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pyinfra.api import FactBase

# Units without an [Install] section, started by others.
_STARTED_BY_OTHERS = {"static", "indirect", "generated", "alias"}


@dataclass(frozen=True, slots=True)
class ReadyState:
    """What was shown last, and what is so now.

    digest: of the plan that was shown to be carried out, empty for none. shown: UUIDs of the cards then.
    units: of those that are there, whether each is enabled and, where it keeps running, active.
    problems: what gpu-ready says, None where it is not there or does not answer. uuids: of the cards now.
    """

    digest: str
    shown: tuple[str, ...]
    units: Mapping[str, bool]
    problems: tuple[str, ...] | None
    uuids: tuple[str, ...]

    def confirms(self, digest: str) -> bool:
        """Whether the plan of this digest is carried out, and nothing has changed since it was shown."""
        return (
            self.digest == digest
            and self.problems == ()
            and self.shown == self.uuids
            and "gpu-ready.service" in self.units
            and all(self.units.values())
        )


def parse_ready(lines: Iterable[str]) -> ReadyState:
    """Parse `key=value` lines; marker and answer are JSON, and neither is trusted to be whole."""
    values: dict[str, str] = {}
    units: dict[str, bool] = {}
    for line in lines:
        key, _, value = line.partition("=")
        if key == "unit":
            name, enabled, active, kind = (*value.split(), "", "", "", "")[:4]
            runs = kind == "oneshot" or active == "active"
            if enabled not in {"", "not-found"}:
                units[name] = runs and (enabled == "enabled" or enabled in _STARTED_BY_OTHERS)
        else:
            values[key] = value
    marker, answer = _json(values.get("marker", "")), _json(values.get("ready", ""))
    problems = answer.get("problems")
    return ReadyState(
        digest=str(marker.get("digest", "")),
        shown=_uuids(_mapping(marker.get("ready"))),
        units=units,
        problems=tuple(map(str, problems)) if isinstance(problems, list) else None,
        uuids=_uuids(answer),
    )


def _json(text: str) -> Mapping[str, object]:
    try:
        return _mapping(json.loads(text))
    except ValueError:
        return {}


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _uuids(answer: Mapping[str, object]) -> tuple[str, ...]:
    gpus = answer.get("gpus")
    return tuple(str(_mapping(gpu).get("uuid", "")) for gpu in gpus) if isinstance(gpus, list) else ()


class Ready(FactBase[ReadyState]):
    """ReadyState of a host. units: that belong to the driver; marker, program: paths."""

    def command(self, units: list[str], marker: str, program: str) -> str:
        """Shell that asks systemd and gpu-ready, which only looks."""
        names, path, ask = " ".join(map(shlex.quote, units)), shlex.quote(marker), shlex.quote(program)
        return (
            f'[ ! -f {path} ] || echo "marker=$(tr -d "\\n" <{path})"; '
            f'for u in {names}; do echo "unit=$u $(systemctl is-enabled "$u" 2>/dev/null || echo not-found) '
            '$(systemctl is-active "$u" 2>/dev/null) $(systemctl show -p Type --value "$u" 2>/dev/null)"; done; '
            f'[ ! -x {ask} ] || echo "ready=$({ask} --check --json 2>/dev/null)"; true'
        )

    @staticmethod
    def default() -> ReadyState:
        """Nothing shown."""
        return parse_ready(())

    def process(self, output: list[str]) -> ReadyState:
        """Parse."""
        return parse_ready(output)


class RebootOwed(FactBase[str]):
    """Why the host has to be rebooted before its driver can be loaded, empty where it has not, or has been since."""

    def command(self, path: str) -> str:
        """Shell that prints the reason that this very boot gave."""
        return (
            f"b=$(cat /proc/sys/kernel/random/boot_id); read -r digest boot reason <{shlex.quote(path)} 2>/dev/null && "
            '[ "$boot" = "$b" ] && echo "$reason"; true'
        )

    @staticmethod
    def default() -> str:
        """None."""
        return ""

    def process(self, output: list[str]) -> str:
        """The reason."""
        return "".join(output)
