"""Lab hosts that serve with Ollama, LM Studio or SGLang: simulated cards, their driver, and stand-ins for the runtimes.

The stand-ins (rackserve/lab/standins) read their settings and files as the real programs do, and compute nothing.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rackserve.lab.gpu import CATALOG, GpuChoice
from rackserve.lab.lab import Lab
from rackserve.lab.model import provided
from tests.lab.deploying import main_pid
from tests.lab.gpu_sites import PORT, UNINSTALL, GpuSite
from tests.lab.talking import wait_for

HOST = "h1"
WAY = "tests/archives"
# 127.0.0.1 at the service's port, in the kernel's words.
LOOPBACK = f"0100007F:{PORT:04X}"


class ArchiveSite(GpuSite):
    """One host with cards and their driver, and a service of the runtime."""

    def __init__(self, lab: Lab, folder: Path, runtime: str) -> None:
        super().__init__(lab, folder, HOST)
        model = provided(lab.names.folder)
        self.service: dict[str, Any] = {
            "name": "chat",
            "model": model["model"],
            "runtime": runtime,
            "concurrency": 2,
            "max_model_len": 2048,
            "port": PORT,
        }
        self.data |= {
            "model_hub": model["model_hub"],
            "catalog": [*model["catalog"], str(lab.names.folder / CATALOG)],
            "services": [self.service],
        }
        self.runtime = runtime

    def offer(self, version: str, archive: Path, kind: str) -> str:
        """Have this archive in the depot and in the inventory, with this kind of checksum; the name of its release."""
        checksum = hashlib.new(kind, archive.read_bytes()).hexdigest()
        self.data["archives"] = {self.runtime: {"url": f"{self.lab.depot_url}/{WAY}/{archive.name}", kind: checksum}}
        self.service["runtime_version"] = version
        return f"{self.runtime}-{version}-{checksum[:12]}"

    def comes_up(self, changes: list[str]) -> None:
        """A run makes these changes, as a dry run has said, and a second one makes none: all is as planned."""
        assert self.predicted(HOST) == changes
        assert self.served().changed(HOST) == changes
        before = main_pid(self.lab, HOST)
        assert self.served().changed(HOST) == []
        assert main_pid(self.lab, HOST) == before
        assert self.completion()["usage"]["completion_tokens"] == 3
        verified = self.rackserve("verify", str(self.write()))
        assert verified.returncode == 0, verified.stdout + verified.stderr

    def leaves_nothing(self) -> None:
        """The service goes with all that came with it, and then rackserve itself."""
        self.data["services"] = []
        self.served()
        folders = "/etc/rackserve /var/lib/rackserve /var/cache/rackserve /etc/systemd/system"
        assert self.on(f"find {folders} -path '*chat*'; getent passwd rackserve-chat; true") == ""
        assert self.on("systemctl list-timers --all --no-legend 'rackserve*'") == ""
        removal = self.deploy(script=UNINSTALL)
        assert removal.code == 0, removal.text
        assert self.on("ls -d /opt/rackserve /etc/rackserve /var/lib/rackserve 2>/dev/null; true") == ""

    def completion(self, **body: Any) -> dict[str, Any]:
        status, text = self.ask("/v1/chat/completions", {"model": "chat", "messages": [], "max_tokens": 3} | body)
        assert status == 200, text
        answer: dict[str, Any] = json.loads(text)
        return answer

    def listening(self) -> list[str]:
        """Local addresses, in the kernel's words, at which somebody listens on the service's port."""
        port = f":{PORT:04X}"
        found = self.on("awk '$4 == \"0A\" {print $2}' /proc/net/tcp /proc/net/tcp6").split()
        return [address for address in found if address.endswith(port)]

    def releases(self) -> set[str]:
        return set(self.on("ls /opt/rackserve/releases").split())

    def words(self, lines: int = 60) -> str:
        """The service's last words."""
        return self.on(f"journalctl -u rackserve@chat --output cat --no-pager -n {lines}")


def driven(lab: Lab, folder: Path, runtime: str, cards: int = 1) -> ArchiveSite:
    """A site whose host has its driver."""
    lab.up(1, "bookworm", gpus=GpuChoice("l40s", cards))
    (lab.depot_dir / WAY).mkdir(parents=True)
    site = ArchiveSite(lab, folder, runtime)
    site.data["services"] = []
    run = site.run()
    assert run.code == 0, run.text
    site.data["services"] = [site.service]
    return site


def stopped_under_a_stream(site: ArchiveSite, tokens: int) -> str:
    """What a stream gets whose server is told to stop when it has begun."""
    # The health check's own request would be taken for the stream. Its timer is back when the service is.
    site.on("systemctl stop rackserve-health@chat.timer rackserve-health@chat.service")
    body = {"model": "chat", "messages": [], "stream": True, "max_tokens": tokens}
    established = f"""until grep -q ':{PORT:04X} .* 01 ' /proc/net/tcp; do sleep 0.1; done; sleep 0.5"""
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(site.ask, "/v1/chat/completions", body)
        begun = site.lab.ssh(HOST, f"timeout 20 sh -c {json.dumps(established)}", check=False).returncode == 0
        assert begun, stream.result()
        # It returns when the stop is under way, which the stream has to outlive.
        site.on("systemctl stop --no-block rackserve@chat")
        assert not stream.done(), stream.result()
        _, said = stream.result()
    state = wait_for(site.lab, HOST, 30, ActiveState="inactive")
    assert state["Result"] == "success", site.words()
    site.on("systemctl start rackserve@chat")
    return said
