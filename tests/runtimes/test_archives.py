"""Where Ollama and LM Studio's server come from: the catalogue's archive, the operator's own, or a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.domain.archives import RuntimeArchive
from rackserve.domain.errors import InputError
from rackserve.domain.node import Node
from rackserve.planning.fit import plan_hosts
from rackserve.planning.installable import not_installable
from rackserve.planning.plans import HostPlan
from rackserve.planning.preflight import archive_origin, host_problems
from rackserve.runtimes.archives import ArchiveRelease
from rackserve.settings import load_hosts

OWN = {"url": "https://mirror/o.tar.zst", "sha256": "a" * 64}


def plan_of(runtime: str, tag: str = "l40s", version: str | None = None, **data: Any) -> HostPlan:
    service = {"name": "chat", "model": "qwen3-8b", "runtime": runtime, "runtime_version": version}
    host = {"gpu_tag": tag, "lmstudio_accept_license": True, "services": [service | {"max_model_len": 4096}]} | data
    (plan,) = plan_hosts(load_hosts([("h1", host)]), load_catalog())
    assert plan.errors == ()
    return plan


def node(distribution: str = "debian", version: str = "12", architecture: str = "x86_64") -> Node:
    return Node(
        distribution=distribution,
        codename="",
        version=version,
        architecture=architecture,
        glibc="2.36",
        memory_mib=65536,
        systemd=True,
        cpu_flags=frozenset(),
        pci_gpus=("10de:26b9",),
    )


def release_of(plan: HostPlan, seen: Node | None = None) -> ArchiveRelease:
    found = archive_origin(plan, load_catalog(), seen or node(), plan.gpu_services[0].runtime_name)
    assert isinstance(found, ArchiveRelease), found
    return found


def sentence_of(plan: HostPlan, seen: Node | None = None) -> str:
    (sentence,) = host_problems(plan, load_catalog(), seen or node())
    return sentence


def test_ollama_comes_from_the_pinned_archive():
    release = release_of(plan_of("ollama"))
    assert release.url.endswith("/v0.32.15/ollama-linux-amd64.tar.zst")
    assert release.name == "ollama-0.32.15-50539c5fe9bf"
    assert (release.link, release.program) == ("/opt/rackserve/current/ollama", "bin/ollama")
    assert (release.tells_version, release.packages) == (True, ("zstd",))


@pytest.mark.parametrize(("tag", "archive"), [("l40s", "linux-x64.full+cuda12"), ("arc-b580", "linux-x64.full")])
def test_the_archive_with_cuda_is_taken_only_where_cuda_is_planned(tag, archive):
    release = release_of(plan_of("lmstudio", tag, os="ubuntu-26.04"), node("ubuntu", "26.04"))
    assert release.url.endswith(f"/0.0.25-1-{archive}.tar.gz")
    assert (release.program, release.tells_version, len(release.checksum)) == ("llmster", False, 128)
    assert {"libatomic1", "libgomp1"} <= set(release.packages)


def test_amd_computes_with_vulkan_and_mesas_packages():
    plan = plan_of("ollama", "mi300x", os="ubuntu-24.04")
    assert plan.gpu_services[0].runtime.backend == "vulkan"
    assert {"libvulkan1", "mesa-vulkan-drivers"} <= set(release_of(plan, node("ubuntu", "24.04")).packages)
    rocky = release_of(plan_of("ollama", "mi300x", os="rocky-9"), node("rocky", "9.4"))
    assert {"vulkan-loader", "mesa-vulkan-drivers", "zstd"} <= set(rocky.packages)


def test_the_other_kind_of_cpu_has_an_archive_of_its_own():
    arm = node(architecture="aarch64")
    assert release_of(plan_of("ollama"), arm).url.endswith("ollama-linux-arm64.tar.zst")
    assert release_of(plan_of("lmstudio"), arm).url.endswith("linux-arm64.full.tar.gz")


def test_a_version_that_nobody_has_pinned_is_refused_with_what_is_and_where_to_name_it():
    sentence = sentence_of(plan_of("ollama", version="0.32.14"))
    assert sentence.startswith("no archive of ollama 0.32.14 for cuda on x86_64 is pinned")
    assert "0.32.15 on x86_64 (cuda, vulkan, cpu)" in sentence
    assert "archives = {'ollama': {'url': ..., 'sha256': ...}}" in sentence


def test_a_version_that_the_operator_names_an_archive_of_is_taken():
    release = release_of(plan_of("ollama", version="0.32.14", archives={"ollama": OWN}))
    assert (release.url, release.checksum, release.size_bytes) == (OWN["url"], "a" * 64, 0)
    assert (release.name, release.packages) == (f"ollama-0.32.14-{'a' * 12}", ("zstd",))


def test_a_mirror_of_the_pinned_version_takes_its_place():
    assert release_of(plan_of("lmstudio", archives={"lmstudio": {"url": "https://m/l", "sha512": "d" * 128}})).url == (
        "https://m/l"
    )


def test_a_system_without_known_packages_for_vulkan_is_refused():
    sentence = sentence_of(
        plan_of("ollama", "arc-b580"), node("suse", "16").model_copy(update={"pci_gpus": ("8086:e20b",)})
    )
    assert "ollama 0.32.15 for vulkan needs the system's own drivers" in sentence
    assert "suse-16" in sentence


def test_hosts_without_such_a_service_have_no_such_release():
    plan = plan_of("llama.cpp")
    for runtime in ("ollama", "lmstudio"):
        assert archive_origin(plan, load_catalog(), node(), runtime) is None


# the catalogue's entries and the operator's


def test_every_pinned_archive_says_where_it_is_from_and_is_of_a_version_that_can_be_planned():
    catalog = load_catalog()
    picks = {entry.runtime: entry.pick for entry in catalog.stacks.runtimes.values() if not entry.prerelease}
    assert {entry.runtime for entry in catalog.archives.values()} == {"ollama", "lmstudio"}
    for entry in catalog.archives.values():
        assert entry.source
        assert entry.date >= "2026"
        assert entry.version == picks[entry.runtime], entry.id
        assert entry.version in entry.url


@pytest.mark.parametrize(
    "archive", [{"url": "https://x/y"}, {"url": "https://x/y", "sha256": "a" * 64, "sha512": "b" * 128}]
)
def test_an_archive_has_one_checksum(archive):
    with pytest.raises(InputError) as caught:
        load_hosts([("h1", {"gpu_tag": "l40s", "archives": {"ollama": archive}})])
    (problem,) = caught.value.problems
    assert (problem.key, "sha256 or sha512" in problem.message) == ("archives.ollama", True)


@pytest.mark.parametrize(
    ("archives", "key"),
    [
        ({"vllm": OWN}, "archives.vllm.[key]"),
        ({"ollama": OWN | {"sha256": "b" * 63}}, "archives.ollama.sha256"),
        ({"ollama": OWN | {"url": "file:///x"}}, "archives.ollama.url"),
        ({"ollama": OWN | {"mirror": "x"}}, "archives.ollama.mirror"),
    ],
)
def test_a_wrong_archive_is_refused_with_its_key(archives, key):
    with pytest.raises(InputError) as caught:
        load_hosts([("h1", {"gpu_tag": "l40s", "archives": archives})])
    assert [problem.key for problem in caught.value.problems] == [key]


def test_an_archive_of_an_unknown_runtime_is_no_entry():
    entry = next(iter(load_catalog().archives.values())).model_dump()
    with pytest.raises(ValueError, match="ollama"):
        RuntimeArchive.model_validate(entry | {"runtime": "vllm"})


# LM Studio's terms


def test_lm_studio_is_refused_until_its_terms_are_accepted():
    catalog = load_catalog()
    (problem,) = not_installable(plan_of("lmstudio", lmstudio_accept_license=False), catalog)
    assert (problem.host, problem.service, problem.key) == ("h1", "chat", "lmstudio_accept_license")
    assert "not free software" in problem.message
    assert "https://lmstudio.ai/app-terms" in problem.hint
    assert not_installable(plan_of("lmstudio"), catalog) == ()
    assert not_installable(plan_of("ollama", lmstudio_accept_license=False), catalog) == ()
