"""The lab's hosts as pyinfra wants them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rackserve.domain.errors import RackserveError
from rackserve.lab.gpu import CATALOG
from rackserve.lab.lab import Lab
from rackserve.lab.model import provided
from rackserve.lab.state import LabHost

MEMINFO = Path("/proc/meminfo")


def inventory_hosts() -> list[tuple[str, dict[str, Any]]]:
    """Hosts of the lab RACKSERVE_LAB names, for an inventory file; none where there is no lab or it cannot be read.

    Every host counts with the machine's whole memory, which they share. Host keys are checked against the lab's own.
    """
    try:
        lab = Lab()
        hosts = lab.hosts()
        if not hosts:
            return []
        state, url = lab.state(), lab.depot_url
    except (RackserveError, OSError):
        return []
    shared = {
        "ssh_user": "root",
        "ssh_key": str(lab.login.key),
        "ssh_known_hosts_file": str(lab.login.known_hosts),
        "ssh_strict_host_key_checking": "yes",
        "ssh_allow_agent": False,
        "ssh_look_for_keys": False,
        "memory_mib": memory_mib(MEMINFO.read_text()),
        "lab_depot_url": url,
        "lab_network": state.network,
    }
    return [
        (
            host.name,
            {
                "ssh_hostname": host.address,
                "ssh_port": host.ssh_port,
                "lab_listen": state.listen(host.name),
                "lab_port": host.port,
                **_gpus(lab, host),
                **shared,
            },
        )
        for host in hosts
    ]


def _gpus(lab: Lab, host: LabHost) -> dict[str, Any]:
    """What a host with simulated GPUs has to be planned with; others serve from memory."""
    if not host.gpu_tag:
        return {"gpu_tag": "cpu"}
    return {"gpu_tag": host.gpu_tag, "gpu_count": host.gpu_count, "catalog": [str(lab.names.folder / CATALOG)]}


def model_data() -> dict[str, Any]:
    """The lab's model and the host data with which it is found; none where there is no lab."""
    return provided(Lab().names.folder)


def memory_mib(meminfo: str) -> int:
    """MemTotal of /proc/meminfo, in MiB."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(match[1]) // 1024 if match else 0
