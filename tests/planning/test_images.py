"""Images by digest: whose is taken, what stands in for an unknown one, and which hosts can run it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError
from rackserve.planning.container_host import podman_problems
from rackserve.planning.fit import plan_hosts
from rackserve.planning.installable import not_installable
from rackserve.planning.plans import HostPlan
from rackserve.settings import load_hosts
from tests.rendering.fleet import host_of

DIGEST = load_catalog().images["tensorrt-llm-1.2.1"].image.rpartition("@")[2]
OTHER = f"sha256:{'0' * 64}"


def plan(tag: str = "l40s", runtime: str = "tensorrt-llm", **host: Any) -> HostPlan:
    version = host.pop("runtime_version", None)
    data = host_of(tag, runtime, **({"runtime_version": version} if version else {})) | host
    (made,) = plan_hosts(load_hosts([("h1", data)]), load_catalog())
    assert not made.errors, made.errors
    return made


def image_of(made: HostPlan) -> tuple[str, int]:
    container = made.gpu_services[0].launch.container
    return container.image, container.disk_gib


def told(made: HostPlan) -> list[str]:
    return [str(problem) for problem in not_installable(made, load_catalog()) if problem.key == "images"]


def test_the_catalogues_image_is_taken_with_the_room_that_it_needs():
    assert image_of(plan()) == (f"nvcr.io/nvidia/tensorrt-llm/release@{DIGEST}", 37 + 59)
    assert told(plan()) == []


def test_a_mirrors_copy_of_it_is_as_large():
    name = f"registry.example:5000/mirror/trtllm@{DIGEST}"
    assert image_of(plan(images={"tensorrt-llm": name})) == (name, 37 + 59)


def test_of_another_build_nobody_knows_how_large_it_is():
    name = f"localhost/mine@{OTHER}"
    assert image_of(plan(images={"tensorrt-llm": name})) == (name, 0)


def test_an_image_for_another_runtime_changes_nothing():
    assert image_of(plan(images={"vllm": f"localhost/mine@{OTHER}"})) == image_of(plan())


@pytest.mark.parametrize(
    ("tag", "runtime", "host"),
    [
        ("l40s", "tensorrt-llm", {"runtime_version": "1.4.0rc1"}),
        ("mi300x", "vllm", {"os": "rocky-9", "runtime_version": "0.29.0"}),
        ("mi300x", "sglang", {"os": "ubuntu-24.04"}),
    ],
)
def test_without_a_known_digest_it_is_planned_and_not_installed(tag, runtime, host):
    made = plan(tag, runtime, **host)
    (problem,) = told(made)
    assert f'images = {{"{runtime}": "registry/name@sha256:..."}}' in problem
    assert told(plan(tag, runtime, **host, images={runtime: f"localhost/mine@{OTHER}"})) == []


def test_an_image_for_what_is_installed_as_a_wheel_is_refused():
    (problem,) = told(plan(runtime="vllm", images={"vllm": f"localhost/mine@{OTHER}"}))
    assert "vllm 0.33.0 has no image here, it is installed as wheel" in problem


def test_a_build_that_comes_as_an_image_goes_first_where_the_host_has_its_own():
    asked = {"os": "ubuntu-24.04", "runtime_version": "0.16.0"}
    own = {"vllm": f"localhost/mine@{OTHER}"}
    assert plan("mi300x", "vllm", **asked).gpu_services[0].runtime.install == "wheel"
    made = plan("mi300x", "vllm", **asked, images=own)
    assert (made.gpu_services[0].runtime.install, told(made)) == ("image", [])


def test_of_an_image_of_ones_own_the_version_is_stated():
    def asked(**host: Any) -> list[str]:
        found = not_installable(plan(images={"tensorrt-llm": f"localhost/mine@{OTHER}"}, **host), load_catalog())
        return [problem.key for problem in found]

    assert asked() == ["runtime_version"]
    assert asked(runtime_version="1.2.1") == []
    assert told(plan(images={"tensorrt-llm": f"registry.example/mirror@{DIGEST}"})) == []


def test_amds_image_of_a_version_that_the_catalogue_has_is_found():
    image, _ = image_of(plan("mi300x", "vllm", os="rocky-9", runtime_version="0.31.0"))
    assert image.startswith("docker.io/vllm/vllm-openai-rocm@sha256:")


# what a setting may say


def refused(image: object, runtime: str = "tensorrt-llm") -> str:
    with pytest.raises(InputError) as caught:
        load_hosts([("h1", host_of("l40s", "tensorrt-llm") | {"images": {runtime: image}})])
    return str(caught.value)


@pytest.mark.parametrize(
    "image",
    [
        "nvcr.io/nvidia/tensorrt-llm/release:1.2.1",
        f"nvidia/tensorrt-llm@{DIGEST}",
        f"nvcr.io/release:1.2.1@{DIGEST}",
        f"https://nvcr.io/release@{DIGEST}",
        f"nvcr.io/release@{DIGEST[:-1]}",
        f"nvcr.io/release@{DIGEST}\nExec=evil",
        f"nvcr.io/${{HOME}}@{DIGEST}",
        f"nvcr.io/../release@{DIGEST}",
        f"nvcr.io//release@{DIGEST}",
        f"nvcr.io/Release@{DIGEST}",
        f"nvcr.io@{DIGEST}",
        f" nvcr.io/release@{DIGEST}",
        "",
        None,
        7,
    ],
)
def test_what_is_no_full_name_with_a_digest_is_refused(image):
    assert "h1: images" in refused(image)


def test_a_runtime_that_has_no_images_is_refused():
    assert "ollama" in refused(f"localhost/mine@{OTHER}", "ollama")


# Of what names are made of, so that some are taken, and of anything else.
@given(st.text("ab7._-/", min_size=1, max_size=8) | st.text("ab7._-/:@$%\"'\\ \n", max_size=8) | st.text(max_size=30))
def test_no_text_at_all_gets_into_a_name_but_harmless_words(text):
    try:
        load_hosts([("h1", host_of("l40s", "tensorrt-llm") | {"images": {"tensorrt-llm": f"nvcr.io/{text}@{DIGEST}"}})])
    except InputError:
        return
    assert re.fullmatch("[a-z0-9._/-]+", text)


# which hosts


@pytest.mark.parametrize(
    "system", ["ubuntu-24.04", "ubuntu-26.04", "debian-13", "rhel-9", "rocky-9", "rhel-10", "rocky-10"]
)
def test_systems_with_quadlet_run_images(system):
    assert list(podman_problems(plan(), load_catalog(), system)) == []


@pytest.mark.parametrize(("system", "podman"), [("ubuntu-22.04", "3.4.4"), ("debian-12", "4.3.1")])
def test_systems_whose_podman_is_too_old_are_refused_with_those_that_have_it(system, podman):
    (problem,) = podman_problems(plan(), load_catalog(), system)
    assert f"{system} ships podman {podman}" in problem
    assert "debian-13" in problem
    assert "chat (tensorrt-llm 1.2.1)" in problem
    assert "debian-12," not in problem


def test_an_unknown_system_is_refused_too():
    (problem,) = podman_problems(plan(), load_catalog(), "debian-forky")
    assert "no podman of debian-forky is known" in problem


@pytest.mark.parametrize("system", ["ubuntu-22.04", "debian-forky"])
def test_hosts_without_containers_may_have_any_podman(system):
    assert list(podman_problems(plan(runtime="vllm"), load_catalog(), system)) == []
