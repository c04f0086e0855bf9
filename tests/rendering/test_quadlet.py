"""The file that podman makes a container's unit of: what stands in it, and what systemd says of the unit.

This machine's podman may be too old to make the unit; what it would add is added here, and lab tests let it do so.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import GpuServicePlan
from rackserve.rendering.quadlet import quadlet_word
from rackserve.rendering.text import RenderedFile
from rackserve.rendering.units import drop_in, service_files, unit_digest
from rackserve.settings import load_hosts
from tests.examples import examples
from tests.rendering.fleet import every_plan, host_of
from tests.rendering.units import analyze, directives, needs_systemd, words_by_manual

IMAGE = f"registry.example/mirror/engine@sha256:{'a' * 64}"
CONTAINED = [
    (tag, runtime, plan.gpu_services[0])
    for tag, runtime, plan in every_plan()
    if plan.gpu_services and plan.gpu_services[0].launch.container is not None
]
# What Quadlet adds to the sections that it hands on (podman 5.4), and the drop-in beside it.
ADDED = {
    "Service": ["Type=notify", "NotifyAccess=all", "KillMode=mixed", "Delegate=yes", "ExecStart=/usr/bin/podman run"],
}
PROGRAMS = (
    "/usr/bin/podman",
    *(f"/usr/libexec/rackserve/{name}" for name in ("prepare-container", "wait-ready", "drain")),
)
EXPOSURE = re.compile(r"Overall exposure level for (\S+): ([0-9.]+)")


def planned(tag: str = "l40s", runtime: str = "tensorrt-llm", **service: Any) -> GpuServicePlan:
    data = host_of(tag, runtime, **service) | {"images": {runtime: IMAGE}}
    if tag == "mi300x":
        data["os"] = "rocky-9"
    (plan,) = plan_hosts(load_hosts([("h1", data)]), load_catalog())
    return plan.gpu_services[0]


def container_of(plan: GpuServicePlan) -> str:
    (file,) = [file for file in service_files(plan) if file.path.endswith(".container")]
    assert file.path == f"/etc/containers/systemd/rackserve@{plan.name}.container"
    return file.text


def values(text: str, section: str, key: str) -> list[str]:
    return [value for found, name, value in directives(text) if (found, name) == (section, key)]


def keys(text: str) -> Counter[tuple[str, str]]:
    return Counter((section, key) for section, key, _ in directives(text))


# what stands in it


def test_there_are_images_among_what_every_tag_is_served_by():
    assert {runtime for _, runtime, _ in CONTAINED} >= {"tensorrt-llm"}


def test_the_image_is_named_by_its_digest_and_never_pulled_at_a_start():
    text = container_of(planned())
    assert values(text, "Container", "Image") == [IMAGE]
    assert values(text, "Container", "Pull") == ["never"]


def test_the_servers_process_has_no_rights():
    text = container_of(planned())
    assert values(text, "Container", "User") == ["${RACKSERVE_USER}"]
    assert values(text, "Container", "DropCapability") == ["all"]
    assert values(text, "Container", "NoNewPrivileges") == ["true"]
    assert not [key for _, key in keys(text) if key in {"AddCapability", "SecurityLabelType", "Privileged"}]
    assert "privileged" not in text.lower().replace("nonewprivileges", "")


def test_nvidias_cards_are_its_own_by_what_is_found_at_the_start():
    text = container_of(planned(gpus=1))
    assert values(text, "Container", "AddDevice") == ["nvidia.com/gpu=${RACKSERVE_GPU0}"]
    allowed = values(text, "Service", "DeviceAllow")
    assert "/dev/rackserve/gpu0 rw" in allowed
    # A node may be made of any kind, and opened of none but these.
    assert [entry for entry in allowed if "char-" in entry or "block-" in entry] == ["char-* m"]


def test_amds_cards_are_nodes_with_the_group_that_may_open_them():
    text = container_of(planned("mi300x", "vllm"))
    assert values(text, "Container", "AddDevice") == ["/dev/kfd", "${RACKSERVE_GPU0}"]
    assert values(text, "Service", "DeviceAllow") == ["/dev/kfd rwm", "/dev/rackserve/gpu0 rwm"]
    (arguments,) = values(text, "Container", "PodmanArgs")
    assert "--group-add=${RACKSERVE_GROUP}" in arguments.split()
    assert values(text, "Container", "ReadOnly") == ["true"]


def test_a_request_in_flight_is_waited_for_before_podman_is_asked_to_stop():
    text = container_of(planned())
    assert values(text, "Service", "ExecStop") == ["+/usr/libexec/rackserve/drain chat"]
    (arguments,) = values(text, "Container", "PodmanArgs")
    (stop,) = re.findall(r"--stop-timeout=(\d+)", arguments)
    (limit,) = values(text, "Service", "TimeoutStopSec")
    assert 0 < int(stop) < int(limit)


def test_a_key_is_a_secret_for_the_time_that_it_runs():
    text = container_of(planned("mi300x", "vllm"))
    assert values(text, "Container", "Secret") == ["rackserve-chat,type=env,target=VLLM_API_KEY"]
    assert values(text, "Service", "ExecStopPost") == ["-/usr/bin/podman secret rm rackserve-chat"]
    assert not values(container_of(planned()), "Container", "Secret")


def test_the_entrypoint_is_run_where_it_is_the_images_business():
    own, replaced = container_of(planned()), container_of(planned("mi300x", "vllm"))
    assert values(own, "Container", "Exec")[0].startswith("trtllm-serve ")
    assert "--entrypoint" not in own
    assert values(replaced, "Container", "Exec")[0].startswith("serve ")
    assert "--entrypoint=vllm" in replaced


def test_the_running_process_carries_the_digest_of_the_plan():
    plan = planned()
    assert f"RACKSERVE_DIGEST={unit_digest(plan)}" in values(container_of(plan), "Container", "Environment")


@pytest.mark.parametrize(
    "change", [{"max_model_len": 8192}, {"structured_output": "xgrammar"}, {"port": 9001}, {"kv_cache_dtype": "fp8"}]
)
def test_every_change_of_the_plan_changes_the_digest(change):
    assert unit_digest(planned(**change)) != unit_digest(planned())


def test_another_image_changes_the_digest():
    data = host_of("l40s", "tensorrt-llm") | {"images": {"tensorrt-llm": IMAGE[:-1] + "b"}}
    (plan,) = plan_hosts(load_hosts([("h1", data)]), load_catalog())
    assert unit_digest(plan.gpu_services[0]) != unit_digest(planned())


@pytest.mark.parametrize("word", ["", ";", "\u0085", "a\u2028b", "é", "a\nb"])
def test_what_quadlet_would_change_is_refused(word):
    with pytest.raises(ValueError, match=r"Quadlet|control character"):
        quadlet_word(word)


# whatever the schema lets through

names = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
tricky = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\\\"'$%{};#=\n ,:"), max_size=12)
good_services = st.fixed_dictionaries(
    {"name": names},
    optional={
        "structured_output": st.from_regex(r"[a-z][a-z_-]{0,20}", fullmatch=True),
        "kv_cache_dtype": st.sampled_from(["fp8", "auto"]),
        "port": st.integers(1024, 65535),
        "runtime_version": st.sampled_from(["1.2.1", "1.4.0rc1"]),
        "revision": st.from_regex(r"[0-9a-f]{40}", fullmatch=True),
    },
)
good_hosts = st.fixed_dictionaries(
    {},
    optional={
        "models_dir": st.from_regex(r"(/[a-z0-9_@+-][A-Za-z0-9._@+-]{0,8}){1,4}", fullmatch=True),
        "images": st.just({"tensorrt-llm": IMAGE}),
        "start_timeout": st.integers(10, 7200),
    },
)
# One value at a time is anything at all: nearly all of what is drawn is refused.
bad_services = st.one_of(
    *(st.fixed_dictionaries({key: tricky}) for key in ("name", "structured_output", "kv_cache_dtype", "revision"))
)
bad_hosts = st.fixed_dictionaries({"models_dir": tricky}) | st.fixed_dictionaries(
    {"images": st.builds(lambda text: {"tensorrt-llm": f"{text}{IMAGE}{text}"}, tricky)}
)
inventories = st.one_of(
    st.tuples(good_services, good_hosts),
    st.tuples(good_services, good_hosts),
    st.tuples(st.builds(lambda good, bad: good | bad, good_services, bad_services), good_hosts),
    st.tuples(good_services, st.builds(lambda good, bad: good | bad, good_hosts, bad_hosts)),
)


@examples(150)
@given(inventories)
def test_the_file_has_the_templates_keys_and_no_others(drawn):
    service, host = drawn
    inventory = host_of("l40s", "tensorrt-llm", **service) | host
    try:
        (plan,) = plan_hosts(load_hosts([("h1", inventory)]), load_catalog())
    except InputError:
        assume(condition=False)
    assume(plan.gpu_services)
    (made,) = plan.gpu_services
    text = container_of(made)
    expected = keys(container_of(planned(runtime_version=service.get("runtime_version"))))
    assert keys(text) == expected
    (command,) = values(text, "Container", "Exec")
    assert tuple(words_by_manual(command)) == made.launch.argv
    # Each volume is two paths and how it may be used.
    assert {len(volume.split(":")) for volume in values(text, "Container", "Volume")} <= {2, 3}


# systemd


def unit_text(plan: GpuServicePlan) -> str:
    """About the unit that Quadlet makes of the file."""
    sections: dict[str, list[str]] = {"Unit": [], "Service": [], "Install": []}
    for section, key, value in directives(container_of(plan)):
        if section in sections:
            sections[section].append(f"{key}={value}")
    for section, lines in ADDED.items():
        sections[section] += lines
    return "".join(f"[{name}]\n" + "\n".join(lines) + "\n" for name, lines in sections.items())


@functools.cache
def each_kind() -> dict[str, GpuServicePlan]:
    return {plan.unit: plan for plan in (planned(name="nv", gpus=1), planned("mi300x", "vllm", name="amd"))}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A file system with a unit of each kind, and stubs for what hosts bring."""
    folder = tmp_path_factory.mktemp("root")
    files = [RenderedFile(path, "#!/bin/sh\n", "755") for path in PROGRAMS]
    targets = ("sysinit", "basic", "shutdown", "multi-user", "network-online", "timers")
    files += [RenderedFile(f"/etc/systemd/system/{name}.target", "[Unit]\n") for name in targets]
    files.append(
        RenderedFile("/etc/systemd/system/nvidia-cdi-refresh.service", "[Service]\nExecStart=/usr/bin/podman\n")
    )
    for name, plan in each_kind().items():
        files.append(
            RenderedFile(f"/etc/systemd/system/rackserve-health@{plan.name}.timer", "[Timer]\nOnActiveSec=1\n")
        )
        files.append(
            RenderedFile(
                f"/etc/systemd/system/rackserve-health@{plan.name}.service", "[Service]\nExecStart=/usr/bin/podman\n"
            )
        )
        files += [RenderedFile(f"/etc/systemd/system/{name}", unit_text(plan)), drop_in(plan)]
    for file in files:
        path = folder / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, encoding="utf-8")
        path.chmod(int(file.mode, 8))
    return folder


@needs_systemd
def test_systemd_verifies_every_kind_without_a_word(root):
    done = analyze(f"--root={root}", "verify", *each_kind(), cwd=root)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_systemd_rates_the_exposure_of_every_kind_at_most_4(root):
    # podman needs rights that units of programs do without; the server in the container has none of them.
    done = analyze("security", f"--root={root}", "--offline=yes", "--threshold=40", *each_kind(), cwd=root)
    rated = {unit: float(score) for unit, score in EXPOSURE.findall(done.stdout)}
    assert set(rated) == set(each_kind())
    assert max(rated.values()) <= 4.0, done.stdout
    assert done.returncode == 0
