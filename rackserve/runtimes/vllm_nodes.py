"""vLLM on several hosts: what each of them runs of one instance.

Natively, each host runs `vllm serve` with its rank; ranks above 0 are headless: no API, no port for clients (vLLM 0.33
entrypoints/cli/serve.py, run_headless). With Ray, the head runs `vllm serve` beside its Ray node, the others a Ray node
alone, which vLLM's workers are started in.
"""

from __future__ import annotations

from dataclasses import replace

from rackserve.runtimes.launch import CURRENT, Launch, Probe
from rackserve.runtimes.member import Member

RAY = f"{CURRENT}/vllm/bin/ray"
# Ports from the meeting point on that no other instance has on any of these hosts; workers get those from the tenth on.
RAY_PORTS = 200
_WORKERS_FROM = 10
# In bytes. vLLM hands tensors over by itself; Ray's default is 30 % of the host's memory.
_OBJECT_STORE = 2**30
# A worker answers nobody.
_SILENT = Probe(metrics=None)


def on_node(launch: Launch, member: Member) -> Launch:
    """What this host runs, from what a single host would."""
    whole = replace(
        launch,
        title=f"{launch.title}, host {member.rank + 1} of {member.size}",
        environment=_environment(launch, member),
        warnings=(*(launch.warnings if member.is_head else ()), *_warnings(member)),
    )
    if member.distributed == "native":
        return _native(whole, member)
    return _ray_head(whole, member) if member.is_head else _ray_node(whole, member)


def _native(launch: Launch, member: Member) -> Launch:
    words = (
        *("--distributed-executor-backend", "mp"),
        *("--nnodes", str(member.size), "--node-rank", str(member.rank)),
        *("--master-addr", member.head_address, "--master-port", str(member.port)),
    )
    if member.is_head:
        return replace(launch, argv=(*launch.argv, *words))
    # It listens nowhere for clients, so it needs neither their address nor their key.
    served = _without(launch.argv, "--host", "--port")
    return replace(_silent(launch), argv=(*served, *words, "--headless"))


def _ray_head(launch: Launch, member: Member) -> Launch:
    address = ("RAY_ADDRESS", member.meeting_point)
    return replace(
        launch,
        argv=(*launch.argv, "--distributed-executor-backend", "ray"),
        environment=(*launch.environment, address),
        # The cards' memory is held by Ray's processes, which are in the other unit.
        gpu_mib=0,
        companion=_ray_node(launch, member),
    )


def _ray_node(launch: Launch, member: Member) -> Launch:
    """A node of Ray with fixed ports; `ray start --block` stays in the foreground as long as the node is up."""
    place = (
        ("--head", f"--port={member.port}", "--include-dashboard=false", f"--ray-client-server-port={member.port + 7}")
        if member.is_head
        else (f"--address={member.meeting_point}",)
    )
    cards = len(member.cards[member.rank])
    words = (
        *(RAY, "start", *place, f"--node-ip-address={member.address}"),
        f"--node-manager-port={member.port + 1}",
        f"--object-manager-port={member.port + 2}",
        f"--runtime-env-agent-port={member.port + 3}",
        f"--dashboard-agent-grpc-port={member.port + 4}",
        f"--dashboard-agent-listen-port={member.port + 5}",
        f"--metrics-export-port={member.port + 6}",
        f"--min-worker-port={member.port + _WORKERS_FROM}",
        f"--max-worker-port={member.port + RAY_PORTS - 1}",
        *(f"--num-gpus={cards}", f"--num-cpus={cards + 1}", f"--object-store-memory={_OBJECT_STORE}"),
        *("--disable-usage-stats", "--block"),
    )
    return replace(_silent(launch), argv=words, gpu_mib=0)


def _silent(launch: Launch) -> Launch:
    return replace(launch, key="none", key_variable="", shutdown_s=0, probe=_SILENT)


def _environment(launch: Launch, member: Member) -> tuple[tuple[str, str], ...]:
    """With this host's own address, and without InfiniBand: RDMA passes by the unit's firewall (IPAddressAllow=)."""
    variables = dict(launch.environment) | {"VLLM_HOST_IP": member.address, "NCCL_IB_DISABLE": "1"}
    if member.interface is not None:
        # NCCL takes a bare name for the beginning of one.
        variables |= {"GLOO_SOCKET_IFNAME": member.interface, "NCCL_SOCKET_IFNAME": f"={member.interface}"}
    return tuple(variables.items())


def _warnings(member: Member) -> tuple[str, ...]:
    found = []
    if member.interface is None:
        found.append(
            f"node_interface is not stated: PyTorch listens where this host's own name resolves to, which has to be "
            f"{member.address} and is 127.0.1.1 on Debian and Ubuntu"
        )
    if member.is_head:
        found.append(
            "its hosts talk to each other in clear and ask for no password: keep their addresses to themselves"
        )
    if member.is_head and member.distributed == "ray":
        found.append(
            "whoever logs in to one of its hosts can run programs as the service's user and read its API key: Ray asks "
            "nobody who they are; ray has to be in vLLM's environment, and vLLM's wheel does not bring it"
        )
    return tuple(found)


def _without(words: tuple[str, ...], *options: str) -> tuple[str, ...]:
    """The words without these options and their values."""
    kept = [index for index, word in enumerate(words) if word in options]
    dropped = {position for index in kept for position in (index, index + 1)}
    return tuple(word for index, word in enumerate(words) if index not in dropped)
