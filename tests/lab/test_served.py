"""llama-server under its unit while it is used: limits hold, a crash loop stops."""

from __future__ import annotations

import json

import pytest

from tests.lab import shortened
from tests.lab.conftest import LabFactory
from tests.lab.deploying import Site, serves
from tests.lab.talking import IN_SCHEMA, Client, client_of, keeps_to_schema, takes_all, wait_for

pytestmark = pytest.mark.lab

LENGTH = 2048
MOST = 1500


@pytest.fixture(scope="module")
def site(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Site:
    lab = lab_factory("served")
    lab.up(1, "forky")
    made = Site(lab, tmp_path_factory.mktemp("served"))
    made.hosts["h1"]["services"][0] |= {"max_model_len": LENGTH, "max_output_tokens": MOST}
    run = made.deploy()
    assert run.code == 0, run.text
    return made


@pytest.fixture
def client(site: Site) -> Client:
    wait_for(site.lab, "h1", 120, ActiveState="active", SubState="running")
    return client_of(site.lab, "h1")


def test_the_packaged_server_takes_every_command_line_that_is_planned(site: Site, client: Client) -> None:
    assert client.key
    takes_all(site, "h1")


def test_output_keeps_to_a_json_schema(client: Client) -> None:
    status, answer = client.ask(max_tokens=200, response_format=IN_SCHEMA)
    assert status == 200, answer
    assert keeps_to_schema(answer["choices"][0]["message"]["content"])


def test_a_request_that_states_no_length_gets_the_services(client: Client) -> None:
    status, answer = client.ask()
    assert (status, answer["usage"]["completion_tokens"]) == (200, MOST), answer
    # What the plan warns of: llama-server has no limit that a request could not raise, but its context.
    assert client.ask(max_tokens=MOST + 400)[1]["usage"]["completion_tokens"] > MOST


def test_a_prompt_beyond_the_context_is_refused(client: Client) -> None:
    status, answer = client.ask(max_tokens=1, messages=[{"role": "user", "content": "one two " * LENGTH}])
    assert status == 400, answer
    assert "context" in json.dumps(answer)


def test_a_crash_loop_stops_and_says_why(site: Site, client: Client) -> None:
    assert client.ask(max_tokens=1)[0] == 200
    path = site.lab.ssh("h1", "ls -d /srv/models/*/*.gguf").stdout.strip()
    away = f"mv {path} {path}.away; systemctl reset-failed rackserve@chat; systemctl kill -s KILL rackserve@chat"
    with shortened.restarts(site.lab, "h1"):
        site.lab.ssh("h1", away)
        state = wait_for(site.lab, "h1", 240, ActiveState="failed")
    assert state["MainPID"] == "0"
    # The first start, and five in an hour after it.
    assert int(state["NRestarts"]) <= 6
    words = site.lab.ssh("h1", "journalctl -u rackserve@chat --output cat --no-pager -n 60").stdout
    assert path in words
    site.lab.ssh("h1", f"mv {path}.away {path}")
    assert site.deploy().code == 0
    assert serves(site.lab, "h1")
