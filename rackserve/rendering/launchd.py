"""A service as launchd runs it on macOS: its daemon, the watch over it, and what the programs beside it know."""

from __future__ import annotations

import functools
import hashlib
import plistlib
from typing import Any

from rackserve.planning.plans import GpuServicePlan
from rackserve.rendering.text import TEMPLATES, RenderedFile
from rackserve.rendering.units import SERVICES, key_path
from rackserve.runtimes.launch import API_KEY_FILE, DRAIN_S

DAEMONS = "/Library/LaunchDaemons"
# /usr/libexec is macOS' own, and read-only.
LIBEXEC = "/usr/local/libexec/rackserve"
STATE = "/var/lib/rackserve"
LOGS = "/var/log/rackserve"
_PROGRAMS = ("drain", "health", "wait-ready")
# Between two looks of the watch, and between two starts of a server that fails.
_SECONDS = 30
_OPEN_FILES = 65536


def label(name: str) -> str:
    """The job of a service's daemon, as launchctl wants it after `system/`."""
    return f"io.rackserve.{name}"


def watch_label(name: str) -> str:
    """The job that looks after the daemon. No service has a dot in its name."""
    return f"{label(name)}.health"


def account(name: str) -> str:
    """A service's user and group. macOS' own begin with an underscore, and may have 254 characters (MAXLOGNAME)."""
    return f"_rackserve-{name}"


def home(name: str) -> str:
    """The only folder that a service may write to."""
    return f"{STATE}/{name}"


@functools.cache
def mac_common_files() -> tuple[RenderedFile, ...]:
    """The same on every Mac with a service."""
    modes = {"common.sh": "644"} | dict.fromkeys(_PROGRAMS, "755")
    folder = TEMPLATES / "libexec-macos"
    return tuple(
        RenderedFile(f"{LIBEXEC}/{name}", (folder / name).read_text(encoding="utf-8"), mode)
        for name, mode in modes.items()
    )


def daemon_files(plan: GpuServicePlan) -> tuple[RenderedFile, ...]:
    """What one service adds: its daemon, the watch, what the programs have to know, and its runtime's own files.

    Raises ValueError for a control character in a word, which no property list can hold.
    """
    digest = daemon_digest(plan)
    return (
        RenderedFile(f"{DAEMONS}/{label(plan.name)}.plist", _plist(_daemon(plan, digest))),
        RenderedFile(f"{DAEMONS}/{watch_label(plan.name)}.plist", _plist(_watch(plan, digest))),
        _known(plan),
        *(RenderedFile(path, text) for path, text in plan.launch.files),
    )


def daemon_digest(plan: GpuServicePlan) -> str:
    """SHA-256 over all text that decides how the service runs; both jobs carry it in their environment.

    launchd keeps a job as it was when it was loaded, and shows it: a run sees whether a new load is still owed.
    """
    launch = plan.launch
    own = (_plist(_daemon(plan, "")), _plist(_watch(plan, "")), _known(plan).text)
    beside = (word for entry in (*launch.files, *launch.links) for word in entry)
    return hashlib.sha256("\0".join([*own, *beside]).encode()).hexdigest()


def _daemon(plan: GpuServicePlan, digest: str) -> dict[str, Any]:
    log = f"{LOGS}/{plan.name}.log"
    return {
        "Label": label(plan.name),
        "ProgramArguments": _command(plan),
        "UserName": account(plan.name),
        "GroupName": account(plan.name),
        "WorkingDirectory": home(plan.name),
        "EnvironmentVariables": {
            "HOME": home(plan.name),
            **dict(plan.launch.environment),
            "RACKSERVE_DIGEST": digest,
        },
        "Umask": 0o77,
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": _SECONDS,
        # The only type without limits on CPU and I/O. As `Background`, which runs on efficiency cores, decoding with
        # Metal was measured at an eighth of its speed (dryvist/nix-ai, issue 916).
        "ProcessType": "Interactive",
        "SoftResourceLimits": {"NumberOfFiles": _OPEN_FILES},
        # From SIGTERM to SIGKILL.
        "ExitTimeOut": plan.launch.stop_s,
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }


def _watch(plan: GpuServicePlan, digest: str) -> dict[str, Any]:
    log = f"{LOGS}/{plan.name}.log"
    return {
        "Label": watch_label(plan.name),
        "ProgramArguments": [f"{LIBEXEC}/health", plan.name],
        "EnvironmentVariables": {"RACKSERVE_DIGEST": digest},
        "Umask": 0o77,
        # A look that is still going on is not joined by another (launchd.plist(5)).
        "StartInterval": _SECONDS,
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }


def _command(plan: GpuServicePlan) -> list[str]:
    key = key_path(plan)
    return [key if word == API_KEY_FILE and key is not None else word for word in plan.launch.argv]


def _known(plan: GpuServicePlan) -> RenderedFile:
    """The service's file for wait-ready, drain and health: a word and its value in each line, as sh can read it."""
    probe = plan.launch.probe
    values = {
        "label": label(plan.name),
        "account": account(plan.name),
        "url": plan.probe_url,
        "health": probe.health,
        "key_file": key_path(plan),
        "start_s": plan.start_timeout,
        "drain_s": DRAIN_S,
        "metrics": probe.metrics,
        "metrics_key": "yes" if probe.metrics_key else "no",
        "in_flight": " ".join(probe.in_flight),
        "progress": " ".join(probe.progress),
    }
    lines = "".join(f"{word} {value}\n" for word, value in values.items() if value not in (None, ""))
    return RenderedFile(f"{SERVICES}/{plan.name}.conf", lines)


def _plist(job: dict[str, Any]) -> str:
    return plistlib.dumps(job, sort_keys=False).decode()
