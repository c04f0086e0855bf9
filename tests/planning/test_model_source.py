"""Where models come from and where they lie: every path holds the revision, or says that it is main's."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError
from rackserve.domain.model import LanguageModel
from rackserve.planning.fit import plan_hosts
from rackserve.planning.model_source import GgufSource, SnapshotSource, checkpoint_source, gguf_source
from rackserve.settings import load_hosts

HUB, FOLDER = "https://hub.example", "/srv/models"
PINNED, STATED = "a" * 40, "b" * 40
MODEL: dict[str, Any] = {
    "name": "tiny",
    "repo": "acme/Tiny-GGUF",
    "revision": "c" * 40,
    "config": {},
    "license": "none",
    "source": "made up",
    "date": "2026-11-27",
    "gguf": [{"quantization": "Q8_0", "file": "tiny-q8_0.gguf", "size_bytes": 7, "sha256": "0" * 64}],
    "checkpoints": [
        {"quantization": "none", "repo": "acme/Tiny"},
        {"quantization": "fp8", "repo": "acme/Tiny-FP8", "revision": PINNED},
    ],
}


def model(**changed: Any) -> LanguageModel:
    return LanguageModel.model_validate(MODEL | changed)


def test_a_checkpoint_without_a_revision_is_mains():
    source = checkpoint_source(model(), "none", HUB, FOLDER)
    assert source == SnapshotSource(HUB, "acme/Tiny", None, "/srv/models/acme--Tiny@main")


def test_a_checkpoint_is_taken_at_the_revision_that_the_catalogue_pins():
    source = checkpoint_source(model(), "fp8", f"{HUB}/", FOLDER)
    assert source == SnapshotSource(HUB, "acme/Tiny-FP8", PINNED, f"/srv/models/acme--Tiny-FP8@{PINNED}")


@pytest.mark.parametrize(("label", "name"), [("none", "Tiny"), ("fp8", "Tiny-FP8")])
def test_a_revision_that_the_operator_states_goes_before_all_others(label, name):
    source = checkpoint_source(model(), label, HUB, FOLDER, STATED)
    assert source == SnapshotSource(HUB, f"acme/{name}", STATED, f"/srv/models/acme--{name}@{STATED}")


def test_a_format_that_nobody_published_is_loaded_from_the_models_own_repository():
    own = model(checkpoints=[], gguf=[], repo="acme/Tiny", revision=None)
    assert checkpoint_source(own, "fp8", HUB, FOLDER).path == "/srv/models/acme--Tiny@main"


@pytest.mark.parametrize("checkpoints", [[], [{"quantization": "none", "repo": "acme/Tiny"}]])
def test_the_models_revision_is_that_of_its_own_repository_alone(checkpoints):
    own = model(checkpoints=checkpoints, repo="acme/Tiny", revision=PINNED, gguf=[])
    assert checkpoint_source(own, "none", HUB, FOLDER).revision == PINNED
    assert checkpoint_source(model(), "none", HUB, FOLDER).revision is None


def test_a_file_is_pinned_by_all_that_the_catalogue_knows_of_it():
    revision = MODEL["revision"]
    assert gguf_source(model(), "Q8_0", f"{HUB}/", "/data") == GgufSource(
        f"{HUB}/acme/Tiny-GGUF/resolve/{revision}/tiny-q8_0.gguf",
        "0" * 64,
        7,
        f"/data/acme--Tiny-GGUF@{revision}/tiny-q8_0.gguf",
    )


def test_a_file_that_the_catalogue_does_not_list_has_no_source():
    assert gguf_source(model(), "Q4_K_M", HUB, FOLDER) is None


@pytest.mark.parametrize("entry", load_catalog().models.values(), ids=lambda entry: entry.name)
def test_every_checkpoint_of_the_catalogue_has_a_place_of_its_own(entry):
    places = {checkpoint_source(entry, each.quantization, HUB, FOLDER).path for each in entry.checkpoints}
    assert len(places) == len(entry.checkpoints)
    assert all(gguf_source(entry, file.quantization, HUB, FOLDER) for file in entry.gguf)


@pytest.mark.parametrize(
    "host",
    [{"gpu_tag": "cpu", "memory_mib": 8192}, {"gpu_tag": "h100-sxm-80gb", "os": "ubuntu-24.04"}],
    ids=["in RAM", "on a GPU"],
)
def test_a_revision_of_a_file_for_llama_cpp_is_refused_the_catalogue_pins_it(host):
    services = [{"name": "a", "model": "qwen3-0.6b", "runtime": "llama.cpp", "revision": STATED}]
    with pytest.raises(InputError) as caught:
        plan_hosts(load_hosts([("h1", host | {"services": services})]), load_catalog())
    (problem,) = caught.value.problems
    assert (problem.service, problem.key, problem.hint) == ("a", "revision", "leave it out")


@pytest.mark.parametrize("revision", ["main", "v1.0", "a" * 39, "A" * 40, f"{STATED}\n"])
def test_a_revision_that_is_no_commit_is_refused(revision):
    services = [{"name": "a", "model": "qwen3-0.6b", "revision": revision}]
    with pytest.raises(InputError, match="revision"):
        load_hosts([("h1", {"gpu_tag": "h100-sxm-80gb", "services": services})])
