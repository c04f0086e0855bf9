"""The lab's network: a bridge with an address on the machine, one network namespace per host, NAT to the outside.

A host's namespace is made here, from outside, and outlives the host's processes: a reboot or a power cut changes
nothing in it, and the host needs no network manager of its own.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

from rackserve.domain.errors import LabError
from rackserve.lab.locks import locked
from rackserve.lab.names import BRIDGE_PREFIX, LabNames
from rackserve.lab.shell import attempt, run
from rackserve.lab.state import LabHost, LabState

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
# What ip_forward was before the first lab; the last one to go puts it back. /run ends with the machine's uptime.
IP_FORWARD_BEFORE = Path("/run/rackserve-lab.ip_forward")
NETWORK_LOCK = "lab-network"
NUMBERS = 254


def free_number(name: str, taken: set[int]) -> int:
    """The third octet of a lab's network: the one its name points to, else the next that is free."""
    start = zlib.crc32(name.encode()) % NUMBERS
    for step in range(NUMBERS):
        number = 1 + (start + step) % NUMBERS
        if number not in taken:
            return number
    raise LabError("every network from 10.213.1.0 to 10.213.254.0 is in use on this machine: take a lab down")


def taken_numbers(routes: str) -> set[int]:
    """Third octets of 10.213.x.x that appear in `ip route` output."""
    return {int(number) for number in re.findall(r"\b10\.213\.(\d+)\.", routes)}


def claim(names: LabNames) -> int:
    """Make the lab's bridge on a free network and return its number."""
    with locked(NETWORK_LOCK, wait=True):
        number = free_number(names.lab, taken_numbers(run(["ip", "-4", "route", "show", "table", "all"])))
        _make_bridge(names, LabState(number))
    return number


def ensure(names: LabNames, state: LabState) -> None:
    """Put back what of the lab's network is gone, as after a restart of the machine."""
    with locked(NETWORK_LOCK, wait=True):
        if not _link_exists(names.bridge):
            if state.number in taken_numbers(run(["ip", "-4", "route", "show", "table", "all"])):
                raise LabError(f"the lab's network {state.network} is now used by something else: `rackserve lab down`")
            _make_bridge(names, state)


def _make_bridge(names: LabNames, state: LabState) -> None:
    run(["ip", "link", "add", names.bridge, "type", "bridge"])
    run(["ip", "address", "add", f"{state.gateway}/24", "dev", names.bridge])
    run(["ip", "link", "set", names.bridge, "up", "alias", f"rackserve lab {names.lab}"])
    run(["nft", "-f", "-"], stdin=nft_rules(names, state))
    if not IP_FORWARD_BEFORE.exists():
        IP_FORWARD_BEFORE.write_text(IP_FORWARD.read_text())
    IP_FORWARD.write_text("1\n")
    for rule in docker_rules(names.bridge):
        # Docker drops what it does not forward itself, and leaves this chain for exceptions.
        if _docker_chain_exists() and attempt(["iptables", "-C", "DOCKER-USER", *rule]).returncode != 0:
            run(["iptables", "-I", "DOCKER-USER", *rule])


def nft_rules(names: LabNames, state: LabState) -> str:
    """Source NAT for the lab's hosts, replacing whatever an earlier run left under the same name."""
    table = f"ip {names.nft_table}"
    return f"""table {table}
delete table {table}
table {table} {{
  chain source_nat {{
    type nat hook postrouting priority srcnat
    ip saddr {state.network} oifname != "{names.bridge}" masquerade
  }}
}}
"""


def docker_rules(bridge: str) -> list[list[str]]:
    """Rules for Docker's own chain that let the lab's packets pass."""
    return [["-i", bridge, "-j", "ACCEPT"], ["-o", bridge, "-j", "ACCEPT"]]


def _docker_chain_exists() -> bool:
    return shutil.which("iptables") is not None and attempt(["iptables", "-S", "DOCKER-USER"]).returncode == 0


def _link_exists(link: str) -> bool:
    return Path("/sys/class/net", link).exists()


def connect(names: LabNames, state: LabState, host: LabHost) -> None:
    """Give the host a namespace with its address, unless it has one."""
    netns, link = names.netns(host.name), names.link(host.index)
    if Path("/run/netns", netns).exists() and _link_exists(link):
        return
    disconnect(netns, link)
    run(["ip", "netns", "add", netns])
    outside = [f"link add {link} type veth peer name host0 netns {netns}", f"link set {link} master {names.bridge} up"]
    inside = [
        "link set lo up",
        f"address add {host.address}/24 dev host0",
        "link set host0 up",
        f"route add default via {state.gateway}",
    ]
    run(["ip", "-batch", "-"], stdin="\n".join(outside) + "\n")
    run(["ip", "-netns", netns, "-batch", "-"], stdin="\n".join(inside) + "\n")


def disconnect(netns: str, link: str) -> None:
    """Remove one host's namespace and interface, where they exist."""
    if _link_exists(link):
        run(["ip", "link", "delete", link])
    if Path("/run/netns", netns).exists():
        run(["ip", "netns", "delete", netns])


def remove(names: LabNames, when_last: Callable[[], None] = lambda: None) -> None:
    """Remove everything of the lab's network, found by name. `when_last` is called if no other lab is there."""
    with locked(NETWORK_LOCK, wait=True):
        present = links()
        for link in present:
            if link.startswith(names.link_prefix):
                run(["ip", "link", "delete", link])
        for netns in namespaces(names.prefix):
            run(["ip", "netns", "delete", netns])
        if names.bridge in present:
            run(["ip", "link", "delete", names.bridge])
        if attempt(["nft", "list", "table", "ip", names.nft_table]).returncode == 0:
            run(["nft", "delete", "table", "ip", names.nft_table])
        for rule in docker_rules(names.bridge) if _docker_chain_exists() else []:
            attempt(["iptables", "-D", "DOCKER-USER", *rule])
        if not any(link.startswith(BRIDGE_PREFIX) for link in links()):
            _restore_forwarding()
            when_last()


def _restore_forwarding() -> None:
    with contextlib.suppress(FileNotFoundError):
        IP_FORWARD.write_text(IP_FORWARD_BEFORE.read_text())
        IP_FORWARD_BEFORE.unlink()


def links() -> list[str]:
    """Every interface of the machine."""
    found: list[dict[str, str]] = json.loads(run(["ip", "-json", "link", "show"]))
    return [link["ifname"] for link in found if "ifname" in link]


def namespaces(prefix: str) -> list[str]:
    """The named network namespaces that begin with `prefix`."""
    return sorted(path.name for path in Path("/run/netns").glob(f"{prefix}*"))
