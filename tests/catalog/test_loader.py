"""The TOML catalogues: ours, and what an operator's files add to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError, Problem
from rackserve.planning.fit import plan_hosts
from rackserve.settings import load_hosts

GPU = """
[gpus.toy]
name = "Toy"
vendor = "nvidia"
vram_mib = 1024
target = "8.9"
pci_ids = ["10de:ffff"]
source = "test"
date = "2026-11-23"
"""
MODEL = f"""
[models.toy]
repo = "toy/toy"
revision = "{"a" * 40}"
license = "MIT"
source = "test"
date = "2026-11-23"
gguf = [{{ quantization = "F16", file = "toy.gguf", size_bytes = 1, sha256 = "{"b" * 64}" }}]

[models.toy.config]
model_type = "llama"
num_hidden_layers = 1
hidden_size = 8
num_attention_heads = 1
intermediate_size = 16
vocab_size = 8
max_position_embeddings = 2048
"""

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return put


def problems_of(*files: str) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as caught:
        load_catalog(files)
    return caught.value.problems


# ours


def test_our_catalogue_loads_and_is_not_empty():
    ours = load_catalog()
    assert {"cpu", "h100-pcie", "mi300x"} <= set(ours.gpus)
    assert ours.models
    assert {archive.architecture for archive in ours.llamacpp.archives} >= {"x86_64", "aarch64"}


def _entries() -> list[Any]:
    ours = load_catalog()
    facts = ours.llamacpp
    return [
        *ours.gpus.values(),
        *ours.models.values(),
        *facts.packages,
        *facts.archives,
        *facts.backends,
        facts.build,
        ours.hub,
    ]


@pytest.mark.parametrize("entry", _entries(), ids=lambda entry: str(next(iter(entry)))[:60])
def test_every_entry_says_where_it_is_from_and_when_that_was_looked_up(entry):
    assert len(entry.source) > 10
    year, month, day = (int(part) for part in entry.date.split("-"))
    assert (year >= 2026, 1 <= month <= 12, 1 <= day <= 31) == (True, True, True)


def test_entries_are_called_what_they_are_listed_as():
    ours = load_catalog()
    assert all(tag == gpu.tag for tag, gpu in ours.gpus.items())
    assert all(name == model.name for name, model in ours.models.items())


def test_no_two_models_share_a_file_and_no_two_tags_a_pci_id():
    ours = load_catalog()
    hashes = [gguf.sha256 for model in ours.models.values() for gguf in model.gguf]
    ids = [pci_id for gpu in ours.gpus.values() for pci_id in gpu.pci_ids]
    assert (len(hashes), len(ids)) == (len(set(hashes)), len(set(ids)))


def test_every_gpu_but_none_has_memory_and_pci_ids():
    for gpu in load_catalog().gpus.values():
        has_own_memory = gpu.vendor not in {"none", "apple"}
        assert (bool(gpu.vram_mib), bool(gpu.pci_ids)) == (has_own_memory,) * 2, gpu.tag


# the operator's


def test_a_users_file_adds_entries_and_keeps_ours(write):
    catalog = load_catalog((write("mine.toml", GPU + MODEL),))
    assert (catalog.gpus["toy"].vram_mib, catalog.models["toy"].gguf[0].file) == (1024, "toy.gguf")
    assert set(load_catalog().models) < set(catalog.models)


def test_a_users_entry_replaces_ours_by_name(write):
    catalog = load_catalog((write("mine.toml", GPU.replace("gpus.toy", "gpus.l40s")),))
    assert (catalog.gpus["l40s"].name, catalog.gpus["l40s"].tag) == ("Toy", "l40s")
    assert load_catalog().gpus["l40s"].name == "NVIDIA L40S"


def test_the_last_of_several_files_wins(write):
    first = write("a.toml", GPU)
    second = write("b.toml", GPU.replace("1024", "2048"))
    assert load_catalog((first, second)).gpus["toy"].vram_mib == 2048
    assert load_catalog((second, first)).gpus["toy"].vram_mib == 1024


def test_a_folder_stands_for_its_toml_files(write, tmp_path):
    write("a.toml", GPU)
    write("b.toml", MODEL)
    write("notes.txt", "not TOML [")
    catalog = load_catalog((str(tmp_path),))
    assert ("toy" in catalog.gpus, "toy" in catalog.models) == (True, True)


def test_a_hub_of_the_users_own_is_where_models_are_fetched_from(write):
    path = write("hub.toml", '[hub]\nurl = "https://hub.example"\nsource = "test"\ndate = "2026-11-23"\n')
    data = {"gpu_tag": "cpu", "memory_mib": 4096, "services": [{"name": "a", "model": "qwen3-0.6b"}]}
    plan = plan_hosts(load_hosts([("h", data)]), load_catalog((path,)))[0]
    assert plan.services[0].source.url.startswith("https://hub.example/Qwen/Qwen3-0.6B-GGUF/resolve/")


# what is refused


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[gpus.toy", ""),
        ('[gpuz.toy]\nname = "x"', "gpuz"),
        ("gpus = 5", "gpus"),
        ("gpus.toy = 5", "gpus.toy"),
        (GPU.replace("1024", "-1"), "gpus.toy.vram_mib"),
        (GPU.replace("nvidia", "acme"), "gpus.toy.vendor"),
        (GPU.replace("10de:ffff", "10DE:FFFF"), "gpus.toy.pci_ids.0"),
        (GPU.replace('date = "2026-11-23"', ""), "gpus.toy.date"),
        (GPU + "colour = 1", "gpus.toy.colour"),
        (MODEL.replace("a" * 40, "main"), "models.toy.revision"),
        (MODEL.replace("b" * 64, ""), "models.toy.gguf.0.sha256"),
        (MODEL.replace("toy.gguf", "../toy.gguf"), "models.toy.gguf.0.file"),
        (MODEL.replace("size_bytes = 1", "size_bytes = 0"), "models.toy.gguf.0.size_bytes"),
        ("hub = 5", "hub"),
        ('[hub]\nurl = "ftp://x"\nsource = "s"\ndate = "d"', "hub.url"),
        ("[llamacpp]\nlibraries = 5", "llamacpp.libraries"),
    ],
)
def test_a_bad_file_is_refused_naming_file_and_key(write, text, key):
    path = write("mine.toml", text)
    problems = problems_of(path)
    assert {problem.where for problem in problems} == {path}
    assert key in {problem.key for problem in problems}
    assert all(problem.message for problem in problems)


@pytest.mark.parametrize("own_name", ["gpus", "models"])
def test_an_entry_cannot_be_called_something_else_inside(write, own_name):
    text = {"gpus": GPU + 'tag = "other"', "models": MODEL.replace("license", 'name = "other"\nlicense')}[own_name]
    path = write("mine.toml", text)
    assert {problem.where for problem in problems_of(path)} == {path}


def test_problems_of_all_files_are_told_at_once(write, tmp_path):
    files = (
        write("a.toml", "["),
        write("b.toml", GPU.replace("1024", '"much"').replace("nvidia", "acme")),
        str(tmp_path / "missing.toml"),
        write("c.toml", '[hub]\nurl = "ftp://x"\nsource = "s"\ndate = "d"'),
    )
    told = {(problem.where, problem.key) for problem in problems_of(*files)}
    assert told >= {
        (files[0], ""),
        (files[1], "gpus.toy.vram_mib"),
        (files[1], "gpus.toy.vendor"),
        (files[2], "catalog"),
    }
    assert files[3] in {where for where, _ in told}


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    assert [problem.where for problem in problems_of(str(path))] == [str(path)]


def test_a_folder_called_like_a_file_is_refused(tmp_path):
    (tmp_path / "sub.toml").mkdir()
    assert [problem.where for problem in problems_of(str(tmp_path))] == [str(tmp_path / "sub.toml")]


def test_a_path_that_cannot_even_be_looked_at_is_refused():
    # Longer than any file system allows: the same error path as a folder that may not be entered.
    path = "/" + "a" * 300 + "/mine.toml"
    assert [problem.where for problem in problems_of(path)] == [path]
