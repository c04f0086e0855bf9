"""Which model the lab's hosts serve: a small real one where the network reaches the hub, else one written here."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rackserve.catalog.gguf_header import read_gguf
from rackserve.catalog.loader import load_catalog
from rackserve.lab.state import write_atomically
from rackserve.lab.tiny_model import FEED_FORWARD, write_tiny_gguf

REAL = "smollm2-135m-instruct"
TINY = "tiny-random"
_TINY_REPO = "rackserve/tiny-random"
# Written on this machine and not published anywhere, so there is no commit to name.
_TINY_REVISION = "0" * 40
_TINY_FILE = "tiny-random-q8_0.gguf"
_RECORD = "model.json"
_HUB_TIMEOUT_S = 4

# The entry is written as a user's own catalogue file is, and read by the same loader.
_ENTRY = """\
[models.{name}]
repo = "{repo}"
revision = "{revision}"
license = "none: random weights"
source = "written by rackserve on this machine"
date = "2026-11-23"

[models.{name}.config]
model_type = "llama"
num_hidden_layers = {facts.layers}
hidden_size = {facts.embedding_length}
num_attention_heads = {facts.heads}
num_key_value_heads = {kv_heads}
head_dim = {facts.key_length}
intermediate_size = {feed_forward}
vocab_size = {facts.vocab_size}
max_position_embeddings = {facts.context_length}

[[models.{name}.gguf]]
quantization = "Q8_0"
file = "{file}"
size_bytes = {size}
sha256 = "{sha256}"
"""


def provide(folder: Path, depot: Path, depot_url: str, *, tiny: bool, progress: Callable[[str], None]) -> None:
    """Choose the lab's model and record the choice in the lab's folder; `tiny` never looks for the hub."""
    if not tiny and hub_answers(load_catalog().hub.url):
        progress(f"model: {REAL}, from {load_catalog().hub.url}")
        record: dict[str, Any] = {"model": REAL}
    else:
        progress(f"model: {TINY}, random weights written here" + ("" if tiny else ": the model hub is not reachable"))
        record = {"model": TINY, "model_hub": depot_url, "catalog": [str(_write_tiny(folder, depot))]}
    write_atomically(folder / _RECORD, json.dumps(record) + "\n")


def provided(folder: Path) -> dict[str, Any]:
    """What `provide` chose: the model's name, and the host data with which it is found. Empty where nothing was."""
    try:
        record: dict[str, Any] = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return record


def hub_answers(url: str) -> bool:
    """Whether the model hub can be reached from this machine."""
    try:
        with urllib.request.urlopen(url, timeout=_HUB_TIMEOUT_S):  # noqa: S310 (the catalogue admits http and https only)
            return True
    except urllib.error.HTTPError as error:
        # A proxy that forbids the hub answers too.
        return error.code < 400  # noqa: PLR2004 (client and server errors start there)
    except (urllib.error.URLError, OSError):
        return False


def _write_tiny(folder: Path, depot: Path) -> Path:
    """Put the tiny model where a hub would have it, and its catalogue entry beside the lab's state."""
    weights = depot / _TINY_REPO / "resolve" / _TINY_REVISION / _TINY_FILE
    weights.parent.mkdir(parents=True, exist_ok=True)
    write_tiny_gguf(weights)
    facts = read_gguf(weights)
    content = weights.read_bytes()
    entry = _ENTRY.format(
        name=TINY,
        repo=_TINY_REPO,
        revision=_TINY_REVISION,
        file=_TINY_FILE,
        facts=facts,
        kv_heads=facts.kv_heads[0],
        feed_forward=FEED_FORWARD,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    catalogue = folder / "catalog.toml"
    write_atomically(catalogue, entry)
    return catalogue
