"""What each host runs of one vLLM instance, natively and with Ray."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackserve.runtimes.launch import Launch, Probe
from rackserve.runtimes.member import Member
from rackserve.runtimes.vllm_nodes import RAY, RAY_PORTS, on_node

ALONE = Launch(
    title="big fp8 on vllm 0.33.0",
    argv=("/opt/vllm", "serve", "/srv/models/m", "--host", "10.1.0.1", "--port", "8001", "--max-model-len", "8192"),
    program="/opt/python",
    probe=Probe(in_flight=("vllm:num_requests_running",)),
    environment=(("VLLM_HOST_IP", "127.0.0.1"), ("HF_HUB_OFFLINE", "1")),
    key="variable",
    key_variable="VLLM_API_KEY",
    writes_code=True,
    shutdown_s=30,
    vendor="nvidia",
    gpus=(0, 1),
    gpu_mib=9000,
    warnings=("answers anybody",),
)
NATIVE, RAY_WAY = "native", "ray"


def member(rank: int, way: str = NATIVE, interface: str | None = "eno1", size: int = 3) -> Member:
    hosts = tuple(f"h{number}" for number in range(size))
    addresses = tuple(f"10.0.0.{number}" for number in range(size))
    port = 29501 if way == NATIVE else 20000
    return Member(way, rank, hosts, addresses, ((0, 1),) * size, interface, port)


def launched(rank: int, way: str = NATIVE, **changes) -> Launch:
    return on_node(ALONE, member(rank, way, **changes))


def value(argv: tuple[str, ...], option: str) -> str:
    return argv[argv.index(option) + 1]


def test_every_host_knows_the_meeting_point_and_its_own_rank():
    for rank in range(3):
        argv = launched(rank).argv
        assert [value(argv, f"--{name}") for name in ("nnodes", "node-rank", "master-addr", "master-port")] == [
            *("3", str(rank)),
            *("10.0.0.0", "29501"),
        ]
        assert value(argv, "--distributed-executor-backend") == "mp"


def test_the_head_serves_as_a_single_host_does():
    head = launched(0)
    assert head.argv[: len(ALONE.argv)] == ALONE.argv
    assert "--headless" not in head.argv
    assert (head.key, head.key_variable, head.shutdown_s, head.probe) == ("variable", "VLLM_API_KEY", 30, ALONE.probe)


def test_the_others_have_no_clients_and_no_key():
    part = launched(1)
    assert part.argv[-1] == "--headless"
    assert {"--host", "--port", "10.1.0.1", "8001"}.isdisjoint(part.argv)
    assert value(part.argv, "--max-model-len") == "8192"
    assert (part.key, part.key_variable, part.probe.metrics, part.probe.in_flight) == ("none", "", None, ())
    assert (part.gpus, part.gpu_mib, part.vendor, part.writes_code) == ((0, 1), 9000, "nvidia", True)


def test_processes_listen_at_the_hosts_own_address_and_interface():
    environment = dict(launched(2).environment)
    assert environment == {
        "VLLM_HOST_IP": "10.0.0.2",
        "HF_HUB_OFFLINE": "1",
        "NCCL_IB_DISABLE": "1",
        "GLOO_SOCKET_IFNAME": "eno1",
        "NCCL_SOCKET_IFNAME": "=eno1",
    }


def test_a_host_without_a_stated_interface_is_told_what_its_name_has_to_resolve_to():
    part = launched(1, interface=None)
    assert not [name for name, _ in part.environment if name.endswith("IFNAME")]
    assert [warning for warning in part.warnings if "node_interface" in warning and "10.0.0.1" in warning]


def test_what_clients_should_know_is_told_on_the_head_only():
    assert "answers anybody" in launched(0).warnings
    assert launched(1).warnings == ()


# Ray


def options(argv: tuple[str, ...]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in argv if word.startswith("--") and "=" in word)


def test_with_ray_the_head_has_a_node_beside_it_and_the_others_are_nodes():
    head, part = launched(0, RAY_WAY), launched(1, RAY_WAY)
    assert value(head.argv, "--distributed-executor-backend") == "ray"
    assert dict(head.environment)["RAY_ADDRESS"] == "10.0.0.0:20000"
    assert head.companion is not None
    assert head.companion.argv[:3] == (RAY, "start", "--head")
    assert part.companion is None
    assert part.argv[:3] == (RAY, "start", "--address=10.0.0.0:20000")
    for node in (head.companion, part):
        assert node.argv[-1] == "--block"
        assert "--disable-usage-stats" in node.argv
        assert (node.key, node.gpus, options(node.argv)["--num-gpus"]) == ("none", (0, 1), "2")


def test_the_memory_of_cards_is_not_looked_for_where_ray_holds_it():
    assert launched(0, RAY_WAY).gpu_mib == 0


@pytest.mark.parametrize("rank", [0, 1])
def test_every_port_of_ray_is_fixed_and_within_the_instances_block(rank):
    found = launched(rank, RAY_WAY)
    node = options((found.companion or found).argv)
    ports = {name: int(number) for name, number in node.items() if name.endswith("port")}
    assert set(ports) >= {
        *("--node-manager-port", "--object-manager-port", "--runtime-env-agent-port", "--metrics-export-port"),
        *("--dashboard-agent-grpc-port", "--dashboard-agent-listen-port", "--min-worker-port", "--max-worker-port"),
    }
    assert ("--port" in ports) == ("--ray-client-server-port" in ports) == (rank == 0)
    assert len(set(ports.values())) == len(ports)
    assert set(ports.values()) <= set(range(20000, 20000 + RAY_PORTS))
    workers = range(ports.pop("--min-worker-port"), ports.pop("--max-worker-port") + 1)
    assert not set(workers) & set(ports.values())
    assert len(workers) > 64


def test_ray_is_told_of_as_what_it_is():
    warning = next(text for text in launched(0, RAY_WAY).warnings if "Ray" in text)
    assert "API key" in warning
    assert not [text for text in launched(1, RAY_WAY).warnings if "Ray" in text]


@given(st.integers(2, 16).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1))))
def test_peers_are_all_addresses_but_the_own(case):
    size, rank = case
    found = member(rank, size=size)
    assert (found.size, found.is_head) == (size, rank == 0)
    assert [*found.peers[:rank], found.address, *found.peers[rank:]] == list(found.addresses)
    assert found.address not in found.peers
