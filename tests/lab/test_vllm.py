"""A real vLLM on the CPU of a real host, with random weights: installed, limited, drained, healed, upgraded."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.contract.harness import MARKS
from tests.lab.checkpoints import MODEL, offer_checkpoint, requirements_entry
from tests.lab.conftest import LabFactory
from tests.lab.deploying import Run, Site, serves
from tests.lab.talking import IN_SCHEMA, Client, client_of, ends_after_its_stream, keeps_to_schema, unit_state, wait_for
from tests.lab.vllm_wheel import VERSION, requirements, wheels

pytestmark = [pytest.mark.lab, *MARKS]

LENGTH, MOST = 1024, 900
RELEASES = "ls -1d /opt/rackserve/releases/vllm-*"
CURRENT = "readlink -f /opt/rackserve/current/vllm"
PACKAGES = 'packages = { deb = ["g++", "libnuma1"], rpm = ["gcc-c++", "numactl-libs"] }\n'


@pytest.fixture(scope="module")
def site(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A bare Debian 12 host, with the packages and the model where an operator would have them."""
    lab, folder = lab_factory("vllm"), tmp_path_factory.mktemp("vllm")
    lab.up(1, "bookworm")
    model = offer_checkpoint(lab, folder)
    offered = lab.depot_dir / "wheels"
    offered.mkdir()
    files = wheels(offered)
    text = requirements(f"{lab.depot_url}/wheels", *files)
    for name, content in (("first.txt", text), ("second.txt", f"# The same packages, as another release.\n{text}")):
        pinned = folder / name
        pinned.write_text(content)
        entry = requirements_entry("vllm", "0.32.0", "cpu", pinned, gib=3, more=PACKAGES)
        pinned.with_suffix(".toml").write_text(f"{model}\n{entry}")
    made = Site(lab, folder)
    made.hosts["h1"] |= {
        "catalog": [str(folder / "first.toml")],
        "model_hub": lab.depot_url,
        "memory_mib": 8192,
        "services": [
            {
                **made.hosts["h1"]["services"][0],
                "model": MODEL,
                "runtime": "vllm",
                "runtime_version": "0.32.0",
                "max_model_len": LENGTH,
                "max_output_tokens": MOST,
            }
        ],
    }
    return made


@pytest.fixture(scope="module")
def first(site: Site) -> Run:
    return site.deploy()


@pytest.fixture
def client(site: Site, first: Run) -> Client:
    assert first.code == 0, first.text
    wait_for(site.lab, "h1", 240, ActiveState="active", SubState="running")
    return client_of(site.lab, "h1")


def test_a_bare_host_serves_and_a_second_run_changes_nothing(site: Site, client: Client) -> None:
    assert client.ask(max_tokens=4)[1]["usage"]["completion_tokens"] == 4
    before = unit_state(site.lab, "h1")["MainPID"]
    again = site.deploy()
    assert (again.code, again.changed("h1")) == (0, [])
    assert unit_state(site.lab, "h1")["MainPID"] == before
    assert site.lab.ssh("h1", CURRENT).stdout.startswith(f"/opt/rackserve/releases/vllm-{VERSION}-cpu-")
    assert site.rackserve("verify", str(site.write())).returncode == 0


def test_the_key_is_needed_and_is_with_the_services_own_processes_alone(site: Site, client: Client) -> None:
    assert Client(client.url, "sk-guessed").ask(max_tokens=1)[0] == 401
    shown = "systemctl show rackserve@chat; cat /proc/[0-9]*/cmdline | tr '\\0' ' '; systemctl cat rackserve@chat"
    assert client.key not in site.lab.ssh("h1", shown).stdout
    having = (
        f"for f in $(grep -l {client.key} /proc/[0-9]*/environ 2>/dev/null); do cat ${{f%environ}}cgroup; done; true"
    )
    groups = [line for line in site.lab.ssh("h1", having).stdout.splitlines() if "system.slice" in line]
    assert groups
    assert all("rackserve@chat.service" in line for line in groups)


def test_output_keeps_to_a_json_schema(client: Client) -> None:
    whole = []
    for seed in range(8):
        status, answer = client.ask(max_tokens=MOST, response_format=IN_SCHEMA, seed=seed)
        assert status == 200, answer
        choice = answer["choices"][0]
        # JSON may have white space without end, and random weights know no better.
        if choice["finish_reason"] == "stop":
            whole.append(choice["message"]["content"])
    assert whole
    assert all(map(keeps_to_schema, whole))


def test_limits_hold(client: Client) -> None:
    status, answer = client.ask(max_tokens=LENGTH - 50, ignore_eos=True)
    assert (status, answer["usage"]["completion_tokens"]) == (200, MOST), answer
    status, answer = client.ask(max_tokens=1, messages=[{"role": "user", "content": "one two " * LENGTH}])
    assert status == 400, answer
    assert client.ask(max_tokens=1, n=65)[0] == 400


def test_a_stream_in_flight_ends_before_the_server_does(site: Site, client: Client) -> None:
    ends_after_its_stream(site, "h1", client, "VLLM::EngineCore")


def test_an_engine_that_hangs_behind_a_green_health_is_ended_and_comes_back(site: Site, client: Client) -> None:
    assert client.ask(max_tokens=1)[0] == 200
    before = unit_state(site.lab, "h1")["MainPID"]
    site.lab.ssh("h1", "pkill -STOP -f VLLM::")
    assert site.lab.ssh("h1", f"curl -s -o /dev/null -w '%{{http_code}}' {client.url}/health").stdout == "200"
    # Three looks, half a minute apart, each of which waits a minute for an answer.
    deadline = time.monotonic() + 3 * (60 + 30) + 180
    while unit_state(site.lab, "h1")["MainPID"] in {before, "0"}:
        assert time.monotonic() < deadline
        time.sleep(2)
    wait_for(site.lab, "h1", 240, ActiveState="active", SubState="running")
    assert serves(site.lab, "h1")
    told = site.lab.ssh("h1", "journalctl -u rackserve-health@chat --output cat --no-pager").stdout
    assert "look 3 of 3 without an answer" in told
    assert "rackserve@chat.service hangs" in told


def test_another_release_and_the_way_back(site: Site, client: Client) -> None:
    assert client.ask(max_tokens=1)[0] == 200
    old = site.lab.ssh("h1", CURRENT).stdout
    first_catalogue = site.hosts["h1"]["catalog"]
    site.hosts["h1"]["catalog"] = [str(Path(first_catalogue[0]).with_name("second.toml"))]
    upgraded = site.deploy()
    assert upgraded.code == 0, upgraded.text
    names = [name.partition(" | ")[2] for name in upgraded.changed("h1")]
    assert names == ["Release of vLLM in place", "Planned release current", "Service serving its plan"]
    assert site.lab.ssh("h1", CURRENT).stdout != old
    site.hosts["h1"]["catalog"] = first_catalogue
    back = site.deploy()
    assert [name.partition(" | ")[2] for name in back.changed("h1")] == names
    assert site.lab.ssh("h1", CURRENT).stdout == old
    assert len(site.lab.ssh("h1", RELEASES).stdout.split()) == 2
    assert serves(site.lab, "h1")
