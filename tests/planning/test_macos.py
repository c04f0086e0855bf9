"""Which plans launchd can serve, and what an operator is told of the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.domain.node import Node
from rackserve.planning.fit import plan_hosts
from rackserve.planning.installable import not_installable
from rackserve.planning.macos import is_mac, mac_problems, mac_releases
from rackserve.planning.preflight import host_problems, llamacpp_origin
from rackserve.runtimes.llamacpp_origins import FromArchive, FromPackage
from rackserve.settings import load_hosts
from tests.macos.planning import data_of, host_plan_of

CATALOG = load_catalog()
NODE = Node(
    distribution="macos",
    codename="",
    version="15.6",
    architecture="arm64",
    glibc="0",
    memory_mib=131072,
    systemd=False,
    cpu_flags=frozenset(),
    pci_gpus=(),
    chip="Apple M4 Max",
)


def problems_of(service: dict | None = None, **host) -> list[str]:
    return mac_problems(host_plan_of(service or {}, **host))


def test_a_plan_for_a_mac_may_go_on():
    assert is_mac(host_plan_of())
    assert problems_of() == []


def test_a_tag_that_is_pretended_makes_no_mac():
    plan = host_plan_of()
    assert not is_mac(replace(plan, host=plan.host.model_copy(update={"gpu_simulated": True})))


@pytest.mark.parametrize(
    "folder", ["/opt/models", "/Volumes/big/models", "/Users/Shared/m", "/usr/local/m", "/var/m", "/opt"]
)
def test_a_folder_that_macos_lets_be_made_is_taken(folder):
    assert problems_of(models_dir=folder) == []


@pytest.mark.parametrize("folder", ["/srv/models", "/models", "/optional/x", "/usr/share/models", "/System/x"])
def test_a_folder_of_the_systems_own_volume_is_refused_with_one_that_works(folder):
    (sentence,) = problems_of(models_dir=folder)
    assert sentence.startswith(f"models_dir {folder}: macOS keeps the folder / read-only")
    assert "set models_dir = '/opt/models'" in sentence


def test_a_mac_has_a_place_for_models_without_being_told_and_others_keep_theirs():
    data = {key: value for key, value in data_of().items() if key != "models_dir"}
    (plan,) = plan_hosts(load_hosts([("mac1", data)]), CATALOG)
    assert plan.host.models_dir == "/opt/models"
    assert plan.gpu_services[0].model_path.startswith("/opt/models/")
    assert mac_problems(plan) == []
    (plan,) = plan_hosts(load_hosts([("h1", data | {"gpu_simulated": True, "os": "debian-12"})]), CATALOG)
    assert plan.host.models_dir == "/srv/models"
    (plan,) = plan_hosts(load_hosts([("mac1", data | {"models_dir": "/srv/models"})]), CATALOG)
    assert plan.host.models_dir == "/srv/models"


def test_a_name_that_is_a_job_of_ours_is_refused():
    (sentence,) = problems_of({"name": "gpu-memory"})
    assert "give the service another name" in sentence


def test_a_promise_that_launchd_cannot_keep_is_refused():
    for networks in ([], ["10.0.0.0/8"]):
        (sentence,) = problems_of({"listen": "10.0.0.5", "allow_from": networks})
        assert "chat: listen 10.0.0.5: launchd filters no networks" in sentence
    assert problems_of({"listen": "10.0.0.5", "allow_from": ["0.0.0.0/0"]}) == []


@pytest.mark.parametrize("runtime", ["llama.cpp", "ollama"])
def test_what_is_served_needs_nothing_that_launchd_does_not_have(runtime):
    # It starts one process, with an environment that every user may read, and nothing before or after it.
    (service,) = host_plan_of({"runtime": runtime}).gpu_services
    launch = service.launch
    assert (launch.before, launch.after, launch.container, launch.companion) == ((), (), None, None)
    assert launch.key in {"file", "none"}
    assert problems_of({"runtime": runtime}) == []


@pytest.mark.parametrize("runtime", ["lmstudio", "vllm"])
def test_what_has_no_build_for_macs_is_refused_with_what_would_do(runtime):
    (plan,) = plan_hosts(load_hosts([("mac1", data_of({"runtime": runtime}))]), CATALOG)
    (problem,) = plan.errors
    assert f"{runtime} " in problem.message
    assert "has no build for apple-m4-max" in problem.message
    assert "llama.cpp" in problem.hint
    assert "ollama" in problem.hint


def test_what_launchd_cannot_keep_stands_against_the_whole_inventory():
    plan = host_plan_of({"listen": "10.0.0.5", "allow_from": []})
    (problem,) = not_installable(plan, CATALOG)
    assert (problem.host, "launchd filters no networks" in problem.message) == ("mac1", True)


def test_the_archive_of_llamacpp_is_installed_where_the_service_looks_for_it():
    plan = host_plan_of()
    ((release,), problems) = mac_releases(plan, CATALOG, NODE, llamacpp_origin(plan, CATALOG, NODE))
    assert problems == ()
    assert release.url.endswith("-bin-macos-arm64.tar.gz")
    assert release.name.startswith("llama.cpp-")
    assert f"{release.link}/{release.program}" == plan.gpu_services[0].launch.program
    assert release.link == "/opt/rackserve/current/llama.cpp"


def test_the_archive_of_ollama_is_the_one_that_the_catalogue_pins():
    plan = host_plan_of({"runtime": "ollama"})
    ((release,), problems) = mac_releases(plan, CATALOG, NODE, "no such thing")
    assert problems == ()
    assert release.url.endswith("/ollama-darwin.tgz")
    assert release.size_bytes == 154052856
    assert (release.link, release.program) == ("/opt/rackserve/current/ollama", "bin/ollama")


def test_a_version_of_ollama_that_nobody_has_pinned_is_refused_with_where_to_pin_it():
    plan = host_plan_of({"runtime": "ollama", "runtime_version": "0.32.3"})
    (releases, (sentence,)) = mac_releases(plan, CATALOG, NODE, "no such thing")
    assert releases == ()
    assert sentence.startswith("chat: no archive of ollama 0.32.3 for metal on arm64 is pinned in the catalogue")


def test_an_archive_of_ollama_that_the_operator_names_is_installed():
    own = {"ollama": {"url": "https://mirror/o.tgz", "sha512": "a" * 128}}
    plan = host_plan_of({"runtime": "ollama"}, archives=own)
    ((release,), problems) = mac_releases(plan, CATALOG, NODE, "no such thing")
    assert (release.url, release.checksum, release.size_bytes) == ("https://mirror/o.tgz", "a" * 128, 0)
    assert problems == ()


def test_services_of_one_runtime_share_a_release():
    plan = host_plan_of({}, {"name": "second", "model": "qwen3-0.6b"})
    assert len(mac_releases(plan, CATALOG, NODE, FromArchive("https://x/y.tar.gz", "0" * 64, ()))[0]) == 1


@pytest.mark.parametrize("install", ["build", "package"])
def test_what_is_not_installed_from_an_archive_is_refused_with_the_reason(install):
    plan = host_plan_of(llamacpp_install=install)
    (releases, (sentence,)) = mac_releases(plan, CATALOG, NODE, llamacpp_origin(plan, CATALOG, NODE))
    assert releases == ()
    assert sentence.startswith("chat: llama")
    assert "llamacpp_" in sentence


def test_a_package_is_none_for_macos():
    origin = FromPackage("llama.cpp-tools", "/usr/bin/llama-server")
    (releases, (sentence,)) = mac_releases(host_plan_of(), CATALOG, NODE, origin)
    assert releases == ()
    assert sentence.endswith("on macOS: llamacpp_install = 'archive'")


# preflight


def test_a_mac_that_is_what_its_tag_says_may_go_on():
    assert host_problems(host_plan_of(), CATALOG, NODE) == []


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        ({"chip": "Apple M4"}, "gpu_tag says apple-m4-max (Apple M4 Max), the host has Apple M4: correct the tag"),
        ({"chip": ""}, "the host has no chip of Apple's"),
        ({"memory_mib": 65536}, "memory_mib says 131072, the host has 65536 MiB"),
    ],
)
def test_a_host_that_is_another_mac_or_none_is_refused(node, sentence):
    (problem,) = host_problems(host_plan_of(), CATALOG, NODE.model_copy(update=node))
    assert sentence in problem


def test_a_mac_under_a_pretended_tag_is_refused_because_systemd_would_serve_there():
    (plan,) = plan_hosts(load_hosts([("h1", data_of(gpu_simulated=True) | {"os": "debian-12"})]), CATALOG)
    assert any("systemd" in problem for problem in host_problems(plan, CATALOG, NODE))
