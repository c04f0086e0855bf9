"""Read an inventory the way pyinfra does, with its group data, without a connection to any host."""

from __future__ import annotations

import ast
import fnmatch
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rackserve.domain.errors import InputError, Problem

_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class InventoryHost:
    """One host as pyinfra sees it: its name, its groups and all of its data."""

    name: str
    groups: tuple[str, ...]
    data: dict[str, Any]


def read_inventory(path: str) -> tuple[InventoryHost, ...]:
    """Hosts of an inventory file.

    Raises InputError naming the file if it is missing, cannot be executed or holds no hosts.
    """
    if not path.startswith("@") and not Path(path).is_file():
        if Path(path).is_dir():
            raise InputError([Problem("is a folder, expected an inventory file", where=path)])
        raise InputError([Problem("no such inventory file", where=path)])
    # pyinfra as a program: it executes the file, and what that file does stays out of this process.
    command = [sys.executable, "-m", "pyinfra", path, "debug-inventory", "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError([Problem(f"could not be read within {_TIMEOUT_S} s", where=path)]) from error
    if done.returncode != 0:
        # pyinfra gathers the hosts' data there, and says of none whose it was.
        if "make_hosts_and_groups" in done.stderr and (problems := _without_settings(path)):
            raise InputError(problems)
        raise InputError([Problem(_last_words(done.stderr), where=path)])
    hosts = _parse(path, done.stdout)
    if not hosts:
        raise InputError([Problem("holds no hosts", where=path)])
    return hosts


def limited(hosts: tuple[InventoryHost, ...], limit: tuple[str, ...], path: str) -> tuple[InventoryHost, ...]:
    """Those whose name or group matches one of `limit` (shell patterns); all without it. Raises InputError for none."""
    selected = tuple(host for host in hosts if not limit or _matches(host, limit))
    if not selected:
        names = ", ".join(host.name for host in hosts[:10])
        raise InputError(
            [Problem(f"no host matches {', '.join(limit)}", where=path, key="--limit", hint=f"it has {names}")]
        )
    return selected


def _parse(path: str, stdout: str) -> tuple[InventoryHost, ...]:
    """Hosts out of pyinfra's JSON, its last line: what an inventory prints by itself comes before it."""
    try:
        entries = json.loads((stdout.splitlines() or ["[]"])[-1])
    except ValueError:
        entries = None
    if not isinstance(entries, list):
        raise InputError([Problem("prints to stdout after it was read", where=path)])
    return tuple(InventoryHost(entry["name"], tuple(entry["groups"]), entry["data"]) for entry in entries)


def _matches(host: InventoryHost, limit: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(host.name, pattern) or pattern in host.groups for pattern in limit)


def _without_settings(path: str) -> list[Problem]:
    """Hosts that the file writes with something else than a mapping, as in ("gpu01", None)."""
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return []
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Tuple(elts=[ast.Constant(value=str(name)), ast.Constant() | ast.List() | ast.Tuple() as data]):
                message = f"expected a mapping of settings, found {ast.unparse(data)[:120]}"
                found.append(Problem(message, where=path, host=name, hint="{} where there are none"))
            case _:
                pass
    return found


def _last_words(stderr: str) -> str:
    """The line of pyinfra's output that says what is wrong; its last one that says anything."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("-->")]
    return f"cannot be executed: {lines[-1]}" if lines else "cannot be executed"
