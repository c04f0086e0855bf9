"""Whether Ollama runs on a host under its own unit, where it listens, and what it holds of the GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pyinfra.api import FactBase

from rackserve.planning.vendor_server import UNIT, VendorServer

_PORT = 11434
# Of OLLAMA_HOST, which may be an address, a port after it, or a URL.
_STATED = re.compile(r"OLLAMA_HOST=[^\s\"]*:(\d+)/?(?:[\s\"]|$)")


def parse_vendor_server(lines: Iterable[str]) -> VendorServer | None:
    """Parse `key=value` lines: the unit's properties, `pid=` of its processes, `app=PID, MIB` of all on GPUs."""
    values: dict[str, str] = {}
    pids, held = set(), []
    for line in lines:
        key, _, value = line.partition("=")
        if key == "pid":
            pids.add(value)
        elif key == "app":
            held.append([word.strip() for word in value.split(",")])
        else:
            values[key] = value
    if values.get("ActiveState") not in {"active", "activating"}:
        return None
    port = _STATED.search(values.get("Environment", ""))
    mib = sum(int(words[-1]) for words in held if words[0] in pids and words[-1].isdecimal())
    return VendorServer(int(port[1]) if port else _PORT, mib)


class VendorServerFact(FactBase[VendorServer | None]):
    """The VendorServer of a host, None where there is none or it is not active."""

    def command(self) -> str:
        """Shell that prints the unit's properties, its processes, and what is held of NVIDIA's cards."""
        query = "--query-compute-apps=pid,used_memory --format=csv,noheader,nounits"
        return (
            f"systemctl show -p ActiveState,Environment -- {UNIT} 2>/dev/null; "
            f"sed 's/^/pid=/' \"/sys/fs/cgroup$(systemctl show -p ControlGroup --value -- {UNIT})/cgroup.procs\" "
            "2>/dev/null; "
            f"timeout 30 nvidia-smi {query} 2>/dev/null | sed 's/^/app=/'; true"
        )

    @staticmethod
    def default() -> VendorServer | None:
        """None."""
        return None

    def process(self, output: list[str]) -> VendorServer | None:
        """Parse."""
        return parse_vendor_server(output)
