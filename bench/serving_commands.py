"""The two command lines that bench.serving compares: a planned one, and the one that a beginner would type."""

from __future__ import annotations

import argparse
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from rackserve.catalog.architectures.reader import read_config
from rackserve.catalog.gguf_header import read_gguf
from rackserve.catalog.loader import load_catalog
from rackserve.domain.host import Host
from rackserve.domain.model import Checkpoint, GgufFile, LanguageModel
from rackserve.domain.service import Service
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import AnyServicePlan

KEY = "bench"
_NAME = "bench"


@dataclass(frozen=True)
class Served:
    """A server to be started. model: what it is asked for."""

    name: str
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    model: str
    key: str = KEY


def served(options: argparse.Namespace, port: int, folder: Path) -> tuple[Served, Served]:
    """With our options, and without. folder: for the file that holds the key."""
    plan = planned(options, port)
    key_file = folder / "key"
    key_file.write_text(f"{KEY}\n")
    ours = tuple(str(key_file) if word.startswith("%d/") else word for word in plan.launch.argv)
    ours = (options.program, *(options.model if word == plan.model_path else word for word in ours[1:]))
    environment = dict(plan.launch.environment)
    if plan.launch.key == "variable":
        environment[plan.launch.key_variable] = KEY
    where = ("--host", "127.0.0.1", "--port", str(port))
    plain = (
        (options.program, "--model", options.model, "--alias", _NAME, *where)
        if options.runtime == "llama.cpp"
        else (options.program, "serve", options.model, "--served-model-name", _NAME, *where)
    )
    offline = (("HF_HUB_OFFLINE", "1"), ("VLLM_NO_USAGE_STATS", "1"))
    return (
        Served("rackserve's options", ours, tuple(environment.items()), _NAME),
        Served("the runtime's defaults", (*plain, *shlex.split(options.defaults_with)), offline, _NAME),
    )


def planned(options: argparse.Namespace, port: int) -> AnyServicePlan:
    """The service as it would be planned on a host of this tag. Raises SystemExit where it does not fit."""
    model = _model(options.runtime, Path(options.model))
    catalog = load_catalog().model_copy(update={"models": {_NAME: model}})
    service = Service(
        name=_NAME,
        model=_NAME,
        runtime=options.runtime,
        port=port,
        concurrency=options.concurrency,
        max_model_len=options.max_model_len,
    )
    host = Host(name="bench", gpu_tag=options.gpu, memory_mib=options.memory_mib, services=(service,))
    (plan,) = plan_hosts((host,), catalog)
    if plan.errors:
        raise SystemExit("\n".join(map(str, plan.errors)))
    return plan.all_services[0]


def _model(runtime: str, path: Path) -> LanguageModel:
    common = {"name": _NAME, "repo": "bench/bench", "license": "none", "source": str(path), "date": "now"}
    if runtime == "vllm":
        config = json.loads((path / "config.json").read_text())
        read_config(config, str(path))
        return LanguageModel(
            config=config, checkpoints=(Checkpoint(quantization="none", repo="bench/bench"),), **common
        )
    facts = read_gguf(path)
    config = {
        "model_type": "llama",
        "num_hidden_layers": facts.layers,
        "hidden_size": facts.embedding_length,
        "num_attention_heads": facts.heads,
        "num_key_value_heads": facts.kv_heads[0],
        "head_dim": facts.key_length,
        "intermediate_size": facts.numbers["feed_forward_length"],
        "vocab_size": facts.vocab_size,
        "max_position_embeddings": facts.context_length,
    }
    file = GgufFile(quantization="Q8_0", file="bench.gguf", size_bytes=path.stat().st_size, sha256="0" * 64)
    return LanguageModel(config=config, revision="0" * 40, gguf=(file,), **common)
