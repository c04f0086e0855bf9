"""A real vLLM on the CPU of a real host, with random weights: installed, limited, upgraded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.harness import MARKS
from tests.lab.conftest import LabFactory
from tests.lab.deploying import Run, Site, serves
from tests.lab.talking import IN_SCHEMA, Client, client_of, keeps_to_schema, unit_state, wait_for
from tests.lab.vllm_site import LENGTH, MOST, RELEASES, installed
from tests.lab.vllm_wheel import VERSION

# Three gigabytes are installed, twice. What is asked of vLLM in `make test`: test_promise_10_*.py.
pytestmark = [pytest.mark.lab, pytest.mark.full, *MARKS]

CURRENT = "readlink -f /opt/rackserve/current/vllm"


@pytest.fixture(scope="module")
def site(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return installed(lab_factory("vllm"), tmp_path_factory.mktemp("vllm"))


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
    assert len(site.lab.ssh("h1", f"ls -1d /{RELEASES}/vllm-*").stdout.split()) == 2
    assert serves(site.lab, "h1")
