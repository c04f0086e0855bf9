"""Services as launchd has them: what is loaded, with which plan, and whether the process has what is on disk now."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyinfra.api import FactBase

_PLIST = re.compile(r"^/Library/LaunchDaemons/io\.rackserve\.([a-z][a-z0-9-]*)\.plist$")
# A line of the job itself; those of blocks inside it begin with two tabs, and have states and pids of their own.
_OWN_LINE = re.compile(r"^\t([^\t=]+) = (.*)$")
_VARIABLE = re.compile(r"^\t\t([^\t ]+) => (.*)$")
# As ps prints how long ago a process began.
_ELAPSED = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)")
_DIGEST = "RACKSERVE_DIGEST"


@dataclass(frozen=True, slots=True)
class Job:
    """A job of launchd's. state: its word for it, empty where the job is not loaded. digest: of the plan it carries."""

    state: str = ""
    pid: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class DaemonState:
    """A service's daemon and the watch over it.

    enabled: nobody has disabled one of them, which would keep it from the next start of the machine. current: the
    process began after the files that it reads but once were put there.
    """

    daemon: Job
    watch: Job
    enabled: bool
    current: bool

    def runs(self, digest: str) -> bool:
        """Whether this very plan is being served and watched, with nothing left to do."""
        loaded = self.daemon.state == "running" and self.daemon.digest == self.watch.digest == digest
        return loaded and self.enabled and self.current


ABSENT = DaemonState(Job(), Job(), enabled=False, current=False)


def parse_job(lines: Iterable[str]) -> Job:
    """Parse what `launchctl print` says of a job. Apple calls it no interface: nothing is taken for granted."""
    own: dict[str, str] = {}
    environment: dict[str, str] = {}
    inside = ""
    for line in lines:
        if match := _OWN_LINE.match(line):
            inside = match[1] if match[2] == "{" else ""
            own.setdefault(match[1], match[2])
        elif inside == "environment" and (variable := _VARIABLE.match(line)):
            environment[variable[1]] = variable[2]
    pid = own.get("pid", "")
    return Job(own.get("state", ""), int(pid) if pid.isdecimal() else 0, environment.get(_DIGEST, ""))


def parse_daemon(lines: Iterable[str]) -> DaemonState:
    """Parse the parts that DaemonFact asks for, each after a line `== NAME`."""
    parts: dict[str, list[str]] = {}
    part: list[str] = []
    for line in lines:
        if line.startswith("== "):
            part = parts.setdefault(line[3:], [])
        else:
            part.append(line)
    disabled = any(line.rstrip().endswith(("=> disabled", "=> true")) for line in parts.get("overrides", []))
    times = dict(line.split("=", 1) for line in parts.get("times", []) if "=" in line)
    return DaemonState(
        daemon=parse_job(parts.get("daemon", [])),
        watch=parse_job(parts.get("watch", [])),
        enabled=not disabled,
        current=_is_current(times),
    )


def _is_current(times: dict[str, str]) -> bool:
    elapsed, now = _ELAPSED.fullmatch(times.get("elapsed", "").strip()), times.get("now", "")
    changed = times.get("changed", "").split()
    if elapsed is None or not now.isdecimal() or not all(word.isdecimal() for word in changed):
        return False
    days, hours, minutes, seconds = (int(part or 0) for part in elapsed.groups())
    began = int(now) - (((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    # Both times are cut to whole seconds.
    return all(int(word) <= began + 1 for word in changed)


class Daemon(FactBase[DaemonState]):
    """DaemonState of one service. Reading times of other users' processes needs root."""

    def command(self, label: str, watch: str, files: Sequence[str]) -> str:
        """Shell that prints launchd's view of both jobs, what is disabled, and the times of process and files."""
        daemon, other = shlex.quote(f"system/{label}"), shlex.quote(f"system/{watch}")
        pid = f"launchctl print {daemon} 2>/dev/null | awk '/^\\tpid = / {{print $3; exit}}'"
        return (
            f'echo "== daemon"; launchctl print {daemon} 2>/dev/null; '
            f'echo "== watch"; launchctl print {other} 2>/dev/null; '
            'echo "== overrides"; launchctl print-disabled system 2>/dev/null | '
            f"grep -F -e {shlex.quote(_quoted(label))} -e {shlex.quote(_quoted(watch))}; "
            'echo "== times"; echo "now=$(date +%s)"; '
            f'echo "elapsed=$(ps -o etime= -p "$({pid})" 2>/dev/null)"; '
            # Of links the times of the links themselves: they change when another release takes over.
            f'echo "changed="$(stat -f %m {" ".join(map(shlex.quote, files))} 2>&1); true'
        )

    @staticmethod
    def default() -> DaemonState:
        """Nothing loaded."""
        return ABSENT

    def process(self, output: list[str]) -> DaemonState:
        """Parse."""
        return parse_daemon(output)


def _quoted(label: str) -> str:
    return f'"{label}"'


def parse_daemons(lines: Iterable[str]) -> tuple[str, ...]:
    """Names of jobs from the files of daemons of ours, sorted, without the watches over them."""
    matches = (_PLIST.match(line.strip()) for line in lines)
    return tuple(sorted(match[1] for match in matches if match))


class InstalledDaemons(FactBase[tuple[str, ...]]):
    """Names of jobs of ours, whether or not the inventory still names a service of that name."""

    def command(self) -> str:
        """Shell that lists their files."""
        return "ls -1 /Library/LaunchDaemons/io.rackserve.*.plist 2>/dev/null || true"

    @staticmethod
    def default() -> tuple[str, ...]:
        """None."""
        return ()

    def process(self, output: list[str]) -> tuple[str, ...]:
        """Parse."""
        return parse_daemons(output)
