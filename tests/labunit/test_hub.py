"""The lab's depot as a model hub: what snapshot.py and huggingface_hub would ask of one commit is there, as files."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from rackserve.lab.depot_server import DepotServer
from rackserve.lab.hub import publish
from rackserve.lab.tiny_checkpoint import write_tiny_checkpoint
from tests.operations.hub_bench import NAME, REPO, assert_in_place, folder_files, run


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_tiny_checkpoint(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """The depot's folder, and its address as hosts have it."""
    folder = tmp_path / "depot"
    folder.mkdir()
    listening = socket.create_server(("127.0.0.1", 0))
    with DepotServer(listening, str(folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.shutdown()
        thread.join()


def test_a_host_fetches_from_the_depot_as_from_a_hub(depot, checkpoint, tmp_path):
    folder, url = depot
    revision = publish(folder, REPO, checkpoint)
    models = tmp_path / "models"
    done = run(url, models / f"{NAME}@main", "main")
    assert (done.returncode, done.stderr) == (0, "")
    assert (models / f"{NAME}@main").resolve() == models / f"{NAME}@{revision}"
    assert_in_place(models / f"{NAME}@{revision}", folder_files(checkpoint))


def test_a_new_publication_is_a_new_commit_and_the_old_one_stays(depot, checkpoint, tmp_path):
    folder, url = depot
    first = publish(folder, REPO, checkpoint)
    assert publish(folder, REPO, checkpoint) == first
    (checkpoint / "generation_config.json").write_text("{}\n")
    second = publish(folder, REPO, checkpoint)
    assert second != first
    for revision in (first, second):
        assert run(url, tmp_path / f"{NAME}@{revision}", revision).returncode == 0
    assert run(url, tmp_path / f"{NAME}@main", "main").returncode == 0
    assert (tmp_path / f"{NAME}@main").resolve().name == f"{NAME}@{second}"


def test_weights_are_listed_by_sha256_and_all_else_by_gits_name(depot, checkpoint):
    folder, url = depot
    revision = publish(folder, REPO, checkpoint)
    with urllib.request.urlopen(f"{url}/api/models/{REPO}/tree/{revision}?recursive=true&expand=false") as answer:
        listing = {entry["path"]: entry for entry in json.load(answer)}
    assert listing.keys() == folder_files(checkpoint).keys()
    for path, content in folder_files(checkpoint).items():
        entry = listing[path]
        assert (entry["type"], entry["size"]) == ("file", len(content))
        if path.endswith(".safetensors"):
            assert entry["lfs"]["oid"] == hashlib.sha256(content).hexdigest()
        else:
            assert entry["oid"] == blob(content)
