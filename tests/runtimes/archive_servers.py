"""Plans of Ollama and LM Studio for a model that is written here, and their stand-ins started as the units do."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import GpuServicePlan
from rackserve.settings import load_hosts

WEIGHTS = b"GGUF" + bytes(2 << 20)
MODEL = """
[models.made]
repo = "me/made"
revision = "{revision}"
license = "none"
source = "written here"
date = "2026-11-27"
gguf = [{{ quantization = "Q8_0", file = "made.gguf", size_bytes = {size}, sha256 = "{sha256}" }}]

[models.made.config]
model_type = "{model_type}"
num_hidden_layers = 4
hidden_size = 256
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 64
intermediate_size = 768
vocab_size = 1000
max_position_embeddings = 8192
"""


def planned(folder: Path, model_type: str = "llama", tag: str = "l40s", **service: Any) -> GpuServicePlan:
    """The plan of the service `chat`, whose model's file is `made.gguf` in the folder."""
    model = folder / "models" / "me--made@1" / "made.gguf"
    model.parent.mkdir(parents=True, exist_ok=True)
    model.write_bytes(WEIGHTS)
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    entry = MODEL.format(size=len(WEIGHTS), sha256=digest, revision="1" * 40, model_type=model_type)
    catalog = folder / "made.toml"
    catalog.write_text(entry)
    data = {
        "gpu_tag": tag,
        "catalog": [str(catalog)],
        "lmstudio_accept_license": True,
        "services": [{"name": "chat", "model": "made", "concurrency": 2, "max_model_len": 2048} | service],
    }
    (plan,) = plan_hosts(load_hosts([("h1", data)]), load_catalog([str(catalog)]))
    assert plan.errors == ()
    return plan.gpu_services[0]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def unpacked(archive: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    subprocess.run(["tar", "-xf", archive, "-C", folder], check=True)
    return folder


@contextmanager
def running(command: list[str], environment: dict[str, str], cwd: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    """A server that answers at this URL; ended by SIGTERM, which it has to end by."""
    variables = {"PATH": os.environ["PATH"], **environment}
    process = subprocess.Popen(
        command, env=variables, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 30
        while not answers(url):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()


def answers(url: str) -> bool:
    try:
        ask(url)
    except OSError:
        return False
    return True


def ask(url: str, body: Any = None, host: str | None = None) -> Any:
    headers = {"Host": host} if host else {}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
        text = answer.read().decode()
    try:
        return json.loads(text)
    except ValueError:
        return text


def completion(url: str, **body: Any) -> Any:
    messages = [{"role": "user", "content": "hi"}]
    return ask(f"{url}/v1/chat/completions", {"model": "chat", "messages": messages, "max_tokens": 1} | body)


def refusal(url: str, body: Any = None, host: str | None = None) -> tuple[int, str]:
    """Status and words of an answer that is an error."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(url, body, host=host)
    with caught.value as error:
        return error.code, error.read().decode()
