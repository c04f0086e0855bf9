"""Host data of the inventory to nouns."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rackserve.domain.errors import InputError, Problem
from rackserve.domain.host import Host
from rackserve.settings import KNOWN_KEYS, load_hosts

CHAT = {"name": "chat", "model": "smollm2-135m-instruct"}
CPU: dict[str, Any] = {"gpu_tag": "cpu", "memory_mib": 4096, "services": [CHAT]}


def load_one(**data: Any) -> Host:
    return load_hosts([("h1", CPU | data)])[0]


def problems_of(*inventory: tuple[str, dict[str, Any]]) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as caught:
        load_hosts(inventory)
    return caught.value.problems


def problem_of(**data: Any) -> Problem:
    problems = problems_of(("h1", CPU | data))
    assert len(problems) == 1, problems
    return problems[0]


def service_problem(**fields: Any) -> Problem:
    return problem_of(services=[CHAT | fields])


# what is accepted


def test_flat_inventory_keys_become_nested_settings():
    host = load_one(llamacpp_install="build", llamacpp_build_jobs=3, apt_lock_timeout=5)
    assert (host.name, host.llamacpp.install, host.llamacpp.build_jobs) == ("h1", "build", 3)
    assert (host.apt_lock_timeout, host.services[0].name) == (5, "chat")


def test_what_is_left_out_has_the_documented_defaults():
    host = load_one()
    assert (host.models_dir, host.llamacpp.install, host.memory_ceiling) == ("/srv/models", "auto", 0.85)
    service = host.services[0]
    assert (service.listen, service.slots, service.llamacpp_kv, service.gpus) == ("127.0.0.1", 2, "f16", 1)


def test_a_host_without_services_is_a_host():
    assert load_one(services=[]).services == ()
    assert load_hosts([("bare", {"gpu_tag": "cpu"})])[0].memory_mib is None


def test_hosts_keep_the_order_of_the_inventory():
    names = [f"h{number}" for number in (3, 1, 2)]
    assert [host.name for host in load_hosts([(name, CPU) for name in names])] == names


@pytest.mark.parametrize(
    "key",
    ["ssh_user", "ssh_hostname", "ssh_key", "vagrant_box", "lab_address", "_sudo", "site", "ports", "model", "gpus"],
)
def test_keys_of_other_deploys_are_left_alone(key):
    assert load_one(**{key: {"any": "thing"}}) == load_one()


def test_networks_are_written_in_one_form():
    service = load_one(services=[CHAT | {"allow_from": ["10.0.0.0/8", "192.168.1.7", "2001:DB8::/32"]}]).services[0]
    assert service.allow_from == ("10.0.0.0/8", "192.168.1.7/32", "2001:db8::/32")


# what is refused, and how it is told


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("gpu_tags", "gpu_tag"),
        ("memory_mb", "memory_mib"),
        ("service", "services"),
        ("llamacpp_instal", "llamacpp_install"),
        ("llamacpp_archive_sha265", "llamacpp_archive_sha256"),
        ("model_dir", "models_dir"),
    ],
)
def test_a_typing_mistake_is_told_with_the_key_that_was_meant(wrong, right):
    problem = problem_of(**{wrong: "x"})
    assert (problem.host, problem.key) == ("h1", wrong)
    assert right in problem.hint


def test_every_problem_of_every_host_is_told_at_once():
    problems = problems_of(
        ("h1", {"gpu_tag": "No Tag", "memory_mib": "much", "servces": []}),
        ("h2", {"memory_mib": 4096}),
        ("h3", CPU | {"services": [{"name": "chat", "concurrency": 0, "colour": "red"}]}),
        ("h4", CPU | {"services": [CHAT, CHAT]}),
        ("h5", CPU | {"llamacpp_install": "guess", "llamacpp_build_jobs": 0}),
        ("fine", CPU),
    )
    told = {(problem.host, problem.service, problem.key) for problem in problems}
    assert told >= {
        ("h1", "", "gpu_tag"),
        ("h1", "", "memory_mib"),
        ("h1", "", "servces"),
        ("h2", "", "gpu_tag"),
        ("h3", "chat", "model"),
        ("h3", "chat", "concurrency"),
        ("h3", "chat", "colour"),
        ("h4", "chat", ""),
        ("h5", "", "llamacpp_install"),
        ("h5", "", "llamacpp_build_jobs"),
    }
    assert "fine" not in {problem.host for problem in problems}
    assert all(problem.message for problem in problems)


def test_a_service_without_a_name_is_told_by_its_number():
    assert problem_of(services=[CHAT, {"model": "x"}]).service == "number 2"


def test_the_value_that_was_found_is_shown_and_never_a_page_of_it():
    assert "'lots'" in problem_of(memory_mib="lots").message
    assert len(str(problem_of(memory_mib="x" * 5000))) < 400


def test_a_problem_is_one_line_that_names_host_service_and_key():
    text = str(service_problem(port=80))
    assert text.startswith("host h1: service chat: port: ")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"services": [CHAT | {"port": 8001}, CHAT | {"name": "two", "port": 8001}]}, "port"),
        ({"services": [CHAT | {"max_model_len": 512, "avg_tokens": 513}]}, "avg_tokens"),
        ({"memory_mib": None}, "memory_mib"),
        ({"llamacpp_install": "mirror"}, "llamacpp_mirror"),
    ],
)
def test_values_that_are_right_alone_and_wrong_together_are_refused(data, key):
    assert problem_of(**data).key == key


@pytest.mark.parametrize("key", ["llamacpp_archive_url", "llamacpp_archive_sha256"])
def test_an_archive_is_refused_without_its_other_half(key):
    value = {"llamacpp_archive_url": "https://example.org/a.tar.gz", "llamacpp_archive_sha256": "0" * 64}[key]
    assert "go together" in str(problem_of(**{key: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Chat"),
        ("name", "chat-"),
        ("name", "a" * 23),
        ("name", "chat\n"),
        ("name", "../chat"),
        ("listen", "localhost"),
        ("listen", "127.0.0.1\n"),
        ("listen", "::1"),
        ("port", 22),
        ("port", 65536),
        ("kv_cache_dtype", "f 32"),
        ("runtime", "tgi"),
        ("gpu_share", 1.5),
        ("max_model_len", 255),
        ("concurrency", 4097),
        ("threads", 0),
    ],
)
def test_service_values_that_cannot_be_served_are_refused(field, value):
    assert service_problem(**{field: value}).key == field


@pytest.mark.parametrize(
    "network",
    ["10.0.0.1/8", "everybody", "", "10.0.0.0/33", "10.0.0.0/8\n", "fe80::1%x\nMemoryMax=infinity", "fe80::1%a any"],
)
def test_networks_that_systemd_would_not_take_as_one_are_refused(network):
    assert service_problem(allow_from=[network]).key == "allow_from.0"


@pytest.mark.parametrize("path", ["srv", "/", "/srv/", "/srv//x", "/srv/a b", "/srv/%n", "/srv\n", "/srv/../etc", "/."])
def test_model_folders_that_systemd_would_not_take_as_written_are_refused(path):
    assert problem_of(models_dir=path).key == "models_dir"


# anything at all

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_service = st.dictionaries(
    st.sampled_from(["name", "model", "port", "listen", "allow_from", "concurrency", "max_model_len", "avg_tokens"])
    | st.text(string.ascii_lowercase, max_size=8),
    _json | st.integers(0, 70000),
    max_size=6,
)
_data = st.dictionaries(
    st.sampled_from(sorted(KNOWN_KEYS)) | st.text(max_size=12),
    _json | st.lists(_service | _json, max_size=3) | st.sampled_from(["cpu", "mirror", 4096, "/srv"]),
    max_size=8,
)


@given(st.lists(st.tuples(st.text(max_size=8), _data), max_size=3))
@example([("h", {"services": [[]], "gpu_tag": None})])
@example([("h", {"services": [{"name": {}}], "llamacpp_mirror": 1})])
@example([("h", {"memory_ceiling": float("nan"), "memory_mib": float("inf")})])
def test_any_data_gives_hosts_or_an_input_error_and_nothing_else(inventory):
    names = [name for name, _ in inventory]
    result = _hosts_or_problems(inventory)
    if isinstance(result, tuple):
        assert [host.name for host in result] == names
    else:
        assert result.problems
        assert {problem.host for problem in result.problems} <= set(names)


def _hosts_or_problems(inventory: list[tuple[str, dict[str, Any]]]) -> tuple[Host, ...] | InputError:
    try:
        return load_hosts(inventory)
    except InputError as error:
        return error
