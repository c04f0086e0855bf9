"""SSH into the lab's hosts with the lab's own key, trusting only the host keys the lab made."""

from __future__ import annotations

import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rackserve.domain.errors import LabError
from rackserve.lab.shell import run
from rackserve.lab.state import LabHost

PROBE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Login:
    """The lab's key and known_hosts file, and how `ssh` is called with them."""

    folder: Path

    @property
    def key(self) -> Path:
        """The private key; root and deploy accept it on every host."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The host keys made by the lab, one line per address."""
        return self.folder / "known_hosts"

    def public_key(self) -> str:
        """The lab's public key, made at first use."""
        public = self.key.with_suffix(".pub")
        if not public.exists():
            self.key.unlink(missing_ok=True)
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rackserve lab", "-f", str(self.key)])
        return public.read_text()

    def trust(self, address: str, host_key: str) -> None:
        """Record the host's key, instead of an older one for the same address."""
        lines = self.known_hosts.read_text().splitlines() if self.known_hosts.exists() else []
        kept = [line for line in lines if line.split()[0] != address]
        self.known_hosts.write_text("\n".join([*kept, f"{address} {host_key}"]) + "\n")

    def argv(self, host: LabHost, user: str = "root") -> list[str]:
        """The ssh command that reaches `host`, without a command to run there."""
        options = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": f'"{self.known_hosts}"',
            "GlobalKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "ConnectTimeout": "5",
        }
        settings = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
        port = ["-p", str(host.ssh_port)]
        return ["ssh", "-F", "/dev/null", "-i", str(self.key), *settings, *port, f"{user}@{host.address}"]

    def run(
        self, host: LabHost, command: str, *, user: str = "root", text: str = "", timeout: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the host and return what it said, whatever its exit code.

        It reads `text`, never the caller's own standard input, which ssh would swallow.
        """
        argv = [*self.argv(host, user), "--", command]
        try:
            return subprocess.run(argv, input=text, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{host.name}: `{command}` did not end within {timeout:g} seconds") from error


def answers(host: LabHost) -> bool:
    """Whether the host's SSH server greets, which is quicker to ask than a login."""
    try:
        with socket.create_connection((host.address, host.ssh_port), timeout=PROBE_SECONDS) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
