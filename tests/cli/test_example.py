"""inventories/example.py is planned as it stands: the page that an admin reads first has to be true."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rackserve.catalog.loader import load_catalog
from rackserve.cli.main import cli
from rackserve.cli.size import RUNTIMES
from rackserve.rollout.inventory import InventoryHost, read_inventory

EXAMPLE = Path(__file__).resolve().parents[2] / "inventories" / "example.py"
COMMON_TAGS = {
    *("rtx-3060-12gb", "rtx-3090", "rtx-4060-ti-16gb", "rtx-4070", "rtx-4090", "rtx-5090", "arc-b580"),
    *("apple-m4-max", "apple-m3-ultra", "l40s", "rtx-6000-ada", "a100-80gb-sxm", "h100-pcie", "h200", "b200", "mi300x"),
    "cpu",
}
JSON_KEYS = {
    *("fits", "weights_gib_per_gpu", "kv_bytes_per_token_per_gpu", "kv_cache_gib_per_gpu", "kv_cache_tokens"),
    *("max_concurrency", "max_model_len", "tensor_parallel", "pipeline_parallel", "gpu_memory_utilization"),
    *("quantization", "kv_cache_dtype", "activation_gib_per_gpu", "overhead_gib_per_gpu", "argv", "reasons"),
    *("warnings", "alternatives", "name", "gpus", "port"),
}


@pytest.fixture(scope="module")
def hosts() -> tuple[InventoryHost, ...]:
    return read_inventory(str(EXAMPLE))


@pytest.fixture(scope="module")
def planned() -> dict[str, Any]:
    answer = CliRunner().invoke(cli, ["plan", str(EXAMPLE), "--json"])
    assert answer.exit_code == 0, answer.stderr
    plan: dict[str, Any] = json.loads(answer.stdout)
    return plan


def services(plan: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    return ((host, service) for host in plan["hosts"] for service in host["services"])


def test_everything_fits_and_nothing_is_refused(planned, hosts):
    assert planned["errors"] == []
    assert [host["name"] for host in planned["hosts"] if host["errors"]] == []
    asked = sum(len(host.data["services"]) for host in hosts)
    assert len([service for _, service in services(planned) if service["fits"]]) == asked


def test_every_tag_of_the_catalogue_has_a_host(hosts):
    tags = {host.data["gpu_tag"] for host in hosts}
    assert tags >= COMMON_TAGS
    assert tags == set(load_catalog().gpus)
    assert any(host.data["gpu_tag"] == "rtx-3090" and host.data["gpu_count"] == 2 for host in hosts)


def test_every_runtime_serves_something(planned):
    assert {service["runtime"] for _, service in services(planned)} == set(RUNTIMES)


def test_services_share_a_gpu_once(planned):
    pairs = [(host["name"], number) for host, service in services(planned) for number in service["gpus"]]
    assert len([pair for pair in set(pairs) if pairs.count(pair) > 1]) == 1


def test_every_host_says_what_it_runs(planned, hosts):
    assert all(host.data.get("os") for host in hosts)
    assert all(host["stack"]["gpu_tag"] for host in planned["hosts"])


def test_the_json_has_every_key_for_every_service(planned):
    lacking = {(host["name"], service["name"]): JSON_KEYS - set(service) for host, service in services(planned)}
    assert {where: keys for where, keys in lacking.items() if keys} == {}


def test_names_are_of_the_domain_for_examples_and_tell_nothing_twice(hosts):
    names = [host.name for host in hosts]
    assert len(names) == len(set(names))
    assert all(name.endswith(".example.org") for name in names)
