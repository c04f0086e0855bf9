"""Lab hosts that serve with Ollama or LM Studio: simulated cards and their driver, and stand-ins for what is served by.

The stand-ins (rackserve/lab/standins) read their settings and files as the real programs do, and compute nothing.
"""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

from rackserve.lab.gpu import CATALOG, GpuChoice
from rackserve.lab.lab import Lab
from rackserve.lab.model import provided
from tests.lab.deploying import Run, main_pid
from tests.lab.gpu_sites import UNINSTALL, GpuSite
from tests.lab.talking import unit_state

HOST = "h1"
PORT = 8001
# One request to the server, from the host itself: it listens there alone. Prints what came, and how it ended.
ASK = """import json, urllib.request as u
message = {message!r}
data = None if message is None else json.dumps(message).encode()
headers = {{"Content-Type": "application/json"}}
try:
    with u.urlopen(u.Request("http://127.0.0.1:{port}{path}", data, headers, method={method!r}), timeout=60) as answer:
        print(answer.status)
        for line in answer:
            print(line.decode(), end="", flush=True)
except u.HTTPError as error:
    print(error.code)
    print(error.read().decode())
"""
WAY = "tests/archives"


class ArchiveSite(GpuSite):
    """One host with a card and its driver, and a service of the runtime."""

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

    def served(self) -> Run:
        run = self.deploy()
        assert run.code == 0, run.text
        return run

    def comes_up(self, changes: list[str]) -> None:
        """A run makes these changes, as a dry run has said, and a second one makes none."""
        assert self.predicted(HOST) == changes
        assert self.served().changed(HOST) == changes
        before = main_pid(self.lab, HOST)
        assert self.served().changed(HOST) == []
        assert main_pid(self.lab, HOST) == before
        assert self.completion()["usage"]["completion_tokens"] == 3

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

    def ask(self, path: str, message: Any = None, method: str | None = None) -> tuple[int, str]:
        """Status and text of an answer."""
        program = ASK.format(path=path, port=PORT, message=message, method=method)
        status, _, text = self.lab.ssh(HOST, "python3 -", input=program).stdout.partition("\n")
        return int(status), text

    def told(self, path: str) -> Any:
        return json.loads(self.ask(path)[1])

    def completion(self, **body: Any) -> dict[str, Any]:
        status, text = self.ask("/v1/chat/completions", {"model": "chat", "messages": [], "max_tokens": 3} | body)
        assert status == 200, text
        answer: dict[str, Any] = json.loads(text)
        return answer

    def releases(self) -> set[str]:
        return set(self.on("ls /opt/rackserve/releases").split())

    def words(self, lines: int = 60) -> str:
        """The service's last words."""
        return self.on(f"journalctl -u rackserve@chat --output cat --no-pager -n {lines}")


def driven(lab: Lab, folder: Path, runtime: str) -> ArchiveSite:
    """A site whose host has its driver."""
    lab.up(1, "bookworm", gpus=GpuChoice("l40s"))
    (lab.depot_dir / WAY).mkdir(parents=True)
    site = ArchiveSite(lab, folder, runtime)
    site.data["services"] = []
    run = site.run()
    assert run.code == 0, run.text
    site.data["services"] = [site.service]
    return site


def stopped_under_a_stream(site: ArchiveSite, tokens: int) -> str:
    """What a stream gets whose server is told to stop when it has begun."""
    said: list[str] = []
    body = {"model": "chat", "messages": [], "stream": True, "max_tokens": tokens}
    thread = threading.Thread(target=lambda: said.append(site.ask("/v1/chat/completions", body)[1]))
    thread.start()
    established = f"""until grep -q ':{PORT:04X} .* 01 ' /proc/net/tcp; do sleep 0.1; done; sleep 0.5"""
    site.on(f"timeout 20 sh -c {json.dumps(established)}; systemctl stop rackserve@chat")
    state = unit_state(site.lab, HOST)
    thread.join(60)
    assert (state["ActiveState"], state["Result"]) == ("inactive", "success"), site.words()
    site.on("systemctl start rackserve@chat")
    return said[0]
