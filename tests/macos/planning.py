"""Plans of Apple hosts to test with."""

from __future__ import annotations

from typing import Any

from rackserve.catalog.loader import load_catalog
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import GpuServicePlan, HostPlan
from rackserve.settings import load_hosts

SERVICE: dict[str, Any] = {"name": "chat", "model": "qwen3-8b", "runtime": "llama.cpp", "concurrency": 4, "gpus": [0]}
HOST: dict[str, Any] = {
    "gpu_tag": "apple-m4-max",
    "memory_mib": 131072,
    "os": "macos-15",
    "models_dir": "/opt/models",
}


def data_of(*services: dict[str, Any], **host: Any) -> dict[str, Any]:
    changed = [SERVICE | {"max_model_len": 8000} | service for service in services or ({},)]
    return HOST | {"services": changed} | host


def host_plan_of(*services: dict[str, Any], **host: Any) -> HostPlan:
    (plan,) = plan_hosts(load_hosts([("mac1", data_of(*services, **host))]), load_catalog())
    assert not plan.errors
    return plan


def plan_of(service: dict[str, Any] | None = None, **host: Any) -> GpuServicePlan:
    (plan,) = host_plan_of(service or {}, **host).gpu_services
    return plan
