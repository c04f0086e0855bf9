"""What a check found, and how a host is reached to be checked."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import testinfra
from testinfra.host import Host as TestinfraHost

from rackserve.domain.errors import HostError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that has to be true, and whether it is. `service` is empty where it concerns the whole host."""

    check: str
    ok: bool
    expected: str
    found: str
    service: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The object of `verify --json`."""
        return asdict(self)


_CONNECT_TIMEOUT_S = 10
# pyinfra's host data to OpenSSH's configuration.
_SSH_OPTIONS = {
    "ssh_hostname": "HostName",
    "ssh_user": "User",
    "ssh_port": "Port",
    "ssh_key": "IdentityFile",
    "ssh_known_hosts_file": "UserKnownHostsFile",
    "ssh_strict_host_key_checking": "StrictHostKeyChecking",
}


def ssh_config(name: str, data: Mapping[str, Any], control_path: str) -> str:
    """An OpenSSH configuration that reaches the host as pyinfra does."""
    options = {option: data[key] for key, option in _SSH_OPTIONS.items() if data.get(key) is not None}
    options.setdefault("StrictHostKeyChecking", "accept-new")
    # One connection for all checks of a host instead of one per command.
    options |= {"ControlMaster": "auto", "ControlPath": control_path, "ControlPersist": "60"}
    options |= {"BatchMode": "yes", "ConnectTimeout": str(_CONNECT_TIMEOUT_S), "LogLevel": "ERROR"}
    lines = [f"    {option} {value}" for option, value in options.items()]
    return "\n".join([f"Host {name}", *lines, ""])


@contextlib.contextmanager
def connected(name: str, data: Mapping[str, Any]) -> Iterator[TestinfraHost]:
    """A testinfra host for one host of an inventory. Raises HostError if it does not answer."""
    alias = name.rpartition("/")[2]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "ssh_config"
        config.write_text(ssh_config(alias, data, f"{folder}/control"), encoding="utf-8")
        sudo = bool(data.get("_sudo")) and data.get("ssh_user") != "root"
        host = testinfra.get_host(f"ssh://{alias}", ssh_config=str(config), sudo=sudo)
        try:
            answer = host.run("true")
        except RuntimeError as error:
            raise HostError(f"{name}: cannot be reached: {reason(error)}") from error
        if answer.rc != 0:
            raise HostError(f"{name}: answers, but runs no command: {answer.stderr.strip()}")
        try:
            yield host
        finally:
            closing = ["ssh", "-F", str(config), "-O", "exit", alias]
            subprocess.run(closing, capture_output=True, stdin=subprocess.DEVNULL, check=False)


def reason(error: Exception) -> str:
    """What ssh said when it ended with its own exit code 255, for which testinfra raises RuntimeError."""
    said = getattr(error.args[0], "stderr", "") if error.args else ""
    return (said or str(error)).strip()[-300:]
