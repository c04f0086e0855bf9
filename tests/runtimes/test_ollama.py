"""Ollama's unit and its store of models: as the real source reads them, acted out by the lab's stand-in."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rackserve.lab.runtime_archives import ollama_archive
from rackserve.planning.plans import GpuServicePlan
from tests.runtimes.archive_servers import WEIGHTS, ask, completion, free_port, planned, refusal, running, unpacked

VERSION = "0.32.15"


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ollama")
    ollama_archive(folder / "o.tar.zst", VERSION)
    return unpacked(folder / "o.tar.zst", folder / "release")


def plan_of(folder: Path, **settings: Any) -> GpuServicePlan:
    return planned(folder, runtime="ollama", **settings)


def blobs(plan: GpuServicePlan) -> dict[str, dict[str, Any]]:
    """What the files of the store hold, by the last part of their media type; the manifest as such."""
    files = dict(plan.launch.files)
    (manifest,) = [json.loads(text) for path, text in files.items() if "/manifests/" in path]
    found = {"manifest": manifest}
    for layer in (manifest["config"], *manifest["layers"]):
        path = next((path for path in files if path.endswith(layer["digest"].replace(":", "-"))), None)
        if path is not None:
            found[layer["mediaType"].rpartition(".")[2]] = json.loads(files[path])
    return found


def test_the_store_holds_the_model_and_nothing_else(tmp_path):
    plan = plan_of(tmp_path)
    store = "/etc/rackserve/ollama/chat"
    (manifest,) = [path for path, _ in plan.launch.files if "/manifests/" in path]
    assert manifest == f"{store}/manifests/registry.ollama.ai/library/chat/latest"
    weights = hashlib.sha256(WEIGHTS).hexdigest()
    assert plan.launch.links == ((f"{store}/blobs/sha256-{weights}", plan.model_path),)
    for path, text in plan.launch.files:
        assert path == manifest or path == f"{store}/blobs/sha256-{hashlib.sha256(text.encode()).hexdigest()}"
    layers = blobs(plan)["manifest"]["layers"]
    assert [layer["mediaType"].rpartition(".")[2] for layer in layers] == ["model", "params"]
    assert layers[0] | {"mediaType": ""} == {"mediaType": "", "digest": f"sha256:{weights}", "size": len(WEIGHTS)}


def test_requests_get_what_is_planned_unless_they_state_something_else(tmp_path):
    plan = plan_of(tmp_path, temperature=0.7, top_p=0.9, max_output_tokens=256)
    sizing = plan.sizing
    assert blobs(plan)["params"] == {
        "num_ctx": 2048,
        "num_batch": sizing.max_num_batched_tokens,
        "num_gpu": 5,
        "num_predict": 256,
        "temperature": 0.7,
        "top_p": 0.9,
        "repeat_penalty": 1.05,
    }
    told = " ".join(plan.launch.warnings)
    assert "max_output_tokens is a default" in told
    assert "temperature holds on Ollama's own paths only" in told
    assert "top_p holds on Ollama's own paths only" in told


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("qwen3-8b", "qwen3"),
        ("qwen3-30b-a3b", "qwen3moe"),
        ("qwen3-next-80b-a3b-instruct", "qwen3next"),
        ("qwen3.5-35b-a3b", "qwen35moe"),
        ("gemma-3-12b-it", "gemma3"),
        ("mixtral-8x7b-instruct-v0.1", "llama"),
        ("gpt-oss-20b", "gpt-oss"),
        ("aya-expanse-32b", "command-r"),
    ],
)
def test_the_family_is_the_architecture_in_the_models_file(tmp_path, model, family):
    plan = plan_of(tmp_path, model=model, max_model_len=2048, tag="h200")
    config = blobs(plan)["v1+json"]
    assert (config["model_family"], config["model_families"]) == (family, [family])
    assert (config["model_format"], config["os"]) == ("gguf", "linux")
    one_at_a_time = any("one request at a time" in warning for warning in plan.launch.warnings)
    assert one_at_a_time == (family in {"qwen3next", "qwen35moe"})


def test_the_environment_pins_the_backend_that_is_planned(tmp_path):
    nvidia, amd = (dict(plan_of(tmp_path, tag=tag).launch.environment) for tag in ("l40s", "mi300x"))
    assert (nvidia["OLLAMA_VULKAN"], "OLLAMA_LLM_LIBRARY" in nvidia) == ("0", False)
    assert (amd["OLLAMA_LLM_LIBRARY"], "OLLAMA_VULKAN" in amd) == ("vulkan", False)
    assert nvidia["OLLAMA_HOST"] == "127.0.0.1:8001"
    assert (nvidia["OLLAMA_NOPRUNE"], nvidia["OLLAMA_NO_CLOUD"], nvidia["LLAMA_ARG_FIT"]) == ("1", "1", "off")


# the stand-in reads it


@contextmanager
def served(folder: Path, release: Path, plan: GpuServicePlan, **changes: str) -> Iterator[str]:
    """The server on a store that lies below the folder, which it may not write to."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    store = folder / "etc"
    for path, text in plan.launch.files:
        file = store / path.removeprefix("/etc/rackserve/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for path, _ in plan.launch.links:
        link = store / path.removeprefix("/etc/rackserve/")
        link.symlink_to(folder / "models" / "me--made@1" / "made.gguf")
    port = free_port()
    variables = dict(plan.launch.environment) | {
        "HOME": str(home),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(store / "ollama" / "chat"),
        **changes,
    }
    url = f"http://127.0.0.1:{port}"
    with running([str(release / "bin/ollama"), "serve"], variables, folder, f"{url}/api/version"):
        yield url


def test_a_server_on_this_store_answers_under_the_services_name(tmp_path, release):
    plan = plan_of(tmp_path)
    with served(tmp_path, release, plan) as url:
        assert ask(f"{url}/api/version") == {"version": VERSION}
        assert ask(f"{url}/api/ps") == {"models": []}
        answer = completion(url)
        assert (answer["model"], answer["usage"]["completion_tokens"]) == ("chat", 1)
        (running_model,) = ask(f"{url}/api/ps")["models"]
        assert (running_model["name"], running_model["context_length"]) == ("chat:latest", 2048)
        assert refusal(f"{url}/v1/chat/completions", {"model": "other"})[0] == 404
        assert refusal(f"{url}/api/version", host="gpu01.example.org")[0] == 403


def test_weights_that_are_not_the_planned_ones_are_not_served(tmp_path, release):
    plan = plan_of(tmp_path)
    (tmp_path / "models" / "me--made@1" / "made.gguf").write_bytes(WEIGHTS + b"x")
    with served(tmp_path, release, plan) as url:
        status, words = refusal(f"{url}/v1/chat/completions", {"model": "chat"})
    assert (status, "digest or size" in words) == (500, True)


@pytest.mark.parametrize(("name", "value"), [("OLLAMA_CONTEXT_LEN", "2048"), ("OLLAMA_KV_CACHE_TYPE", "fp8")])
def test_the_stand_in_refuses_what_ollama_does_not_know(tmp_path, release, name, value):
    with (
        pytest.raises(AssertionError, match="stand-in: Ollama has no"),
        served(tmp_path, release, plan_of(tmp_path), **{name: value}),
    ):
        pass


def test_the_program_tells_its_version_without_a_server(release, tmp_path):
    environment = {"HOME": str(tmp_path), "OLLAMA_HOST": "127.0.0.1:9"}
    said = subprocess.run(
        [release / "bin/ollama", "--version"], env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines()[-1] == f"Warning: client version is {VERSION}"
