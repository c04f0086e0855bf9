"""What of a service's cache folder nobody reads any more: told by its plan, as the start is told it."""

from __future__ import annotations

from rackserve.rendering import host_files
from rackserve.rendering.caches import kept_apart
from rackserve.rendering.units import drop_in
from tests.rendering.fleet import every_plan
from tests.rendering.test_nodes import planned as spread_out
from tests.rendering.units import directives

STARTED = "/usr/libexec/rackserve/launch "


def test_it_is_told_of_who_keeps_all_by_release_or_image_and_of_nobody_else():
    told = {
        (runtime, bool(service.launch.gpus), kept_apart(service) == f"/var/cache/rackserve/{service.name}")
        for _, runtime, plan in every_plan()
        if plan.gpu.vendor != "apple"
        for service in plan.all_services
    }
    assert told == {
        *(("vllm", True, True), ("vllm", False, True), ("sglang", True, True), ("tensorrt-llm", True, True)),
        *(("ollama", True, True), ("llama.cpp", True, True)),
        # Its key is read from a file: nothing is started before the server, which writes where the unit says.
        ("llama.cpp", False, False),
        # Its server is in its home, and is of no release.
        ("lmstudio", True, False),
    }


def test_whatever_its_unit_runs_as_the_services_user_is_led_to_its_release():
    units = 0
    for _, _, plan in every_plan():
        for service in plan.all_services:
            if service.launch.container is None and kept_apart(service) is not None:
                own = [line for line in started(drop_in(service).text) if not line.startswith("+")]
                assert [line for line in own if not led(line)] == []
                units += len(own)
    assert units > 100


def started(text: str) -> list[str]:
    return [" ".join(value.split()) for _, key, value in directives(text) if key.startswith("Exec") and value]


def led(line: str) -> bool:
    return line.startswith(STARTED) and " -- /opt/rackserve/current/" in line


def test_a_node_of_ray_keeps_its_caches_as_the_service_beside_it():
    plan = spread_out(distributed="ray")["h1"]
    (service,) = plan.all_services
    place = "/etc/systemd/system/rackserve-ray@big.service.d/10-plan.conf"
    (beside,) = (file.text for file in host_files(plan) if file.path == place)
    (line,) = started(beside)
    assert led(line)
    assert kept_apart(service) == "/var/cache/rackserve/big"
