"""Runtimes that are programs of the host elsewhere, and run from images where there is no other build of them."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import GpuServicePlan
from rackserve.settings import load_hosts
from tests.rendering.fleet import host_of

IMAGE = f"registry.example/mirror/engine@sha256:{'a' * 64}"


def planned(runtime: str, *, gpus: int = 1, **host: Any) -> GpuServicePlan:
    """A service on AMD's cards under Rocky 9, whose C library is too old for wheels."""
    data = host_of("mi300x", runtime, gpus=gpus) | {"os": "rocky-9", "gpu_count": gpus, "images": {runtime: IMAGE}}
    (plan,) = plan_hosts(load_hosts([("h1", data | host)]), load_catalog())
    assert not plan.errors, plan.errors
    (service,) = plan.gpu_services
    assert service.runtime.install == "image"
    return service


@pytest.mark.parametrize(("runtime", "begins"), [("vllm", ("vllm", "serve")), ("sglang", ("python3", "-m"))])
def test_it_is_the_same_server_from_the_images_own_programs(runtime, begins):
    service = planned(runtime)
    launch = service.launch
    assert launch.argv[:2] == begins
    assert not [word for word in launch.argv if word.startswith("/opt/rackserve")]
    assert launch.program == ""
    assert launch.container.image == IMAGE
    # The command is not the image's entrypoint's to change.
    assert not launch.container.entrypoint


def test_the_model_is_where_the_host_has_it():
    service = planned("vllm")
    assert service.launch.container.volumes == ((service.model_path, service.model_path),)
    assert service.model_path in service.launch.argv


def test_vllms_key_is_in_its_environment_and_nowhere_else():
    launch = planned("vllm").launch
    assert (launch.key, launch.key_variable) == ("variable", "VLLM_API_KEY")
    assert "VLLM_API_KEY" not in dict(launch.environment)


def test_what_it_compiles_outlives_the_container():
    environment = dict(planned("vllm").launch.environment)
    assert {environment[name].split("/")[1] for name in ("HOME", "TRITON_CACHE_DIR", "XDG_CACHE_HOME")} == {"cache"}


def test_processes_of_several_cards_meet_where_the_unit_lets_them():
    assert "NCCL_SOCKET_IFNAME" not in dict(planned("vllm").launch.environment)
    assert dict(planned("vllm", gpus=2).launch.environment)["NCCL_SOCKET_IFNAME"] == "=lo"
