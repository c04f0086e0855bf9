"""What a llama-server says of the command lines that are planned for it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import AnyServicePlan
from rackserve.runtimes.launch import API_KEY_FILE
from rackserve.settings import load_hosts

CARDS = (
    ("cpu", 1),
    ("rtx-4090", 1),
    ("rtx-3090", 2),
    ("l40s", 4),
    ("mi300x", 1),
    ("arc-b580", 1),
    ("rtx-3060-12gb", 1),
)
MODELS = ("qwen3-0.6b", "qwen3-8b", "qwen3-32b", "llama-3.1-8b-instruct")
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"kv_cache_dtype": "q8_0"},
    {"kv_cache_dtype": "q4_0"},
    {"concurrency": 7, "max_model_len": 2048},
    {"max_output_tokens": 100, "temperature": 0.5, "top_p": 0.9, "repetition_penalty": None},
    {"listen": "10.0.0.5", "allow_from": ["10.0.0.0/8"], "port": 9000},
)


def unknown(told: str) -> set[str]:
    """Names of the option table that this `--help` does not have."""
    known = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", told))
    settings = load_catalog().options["llama.cpp"].settings
    names = {spelling.name for spellings in settings.values() for spelling in spellings if spelling.name[:2] == "--"}
    assert len(names) > 30
    return names - known


def command_lines(program: str, key_file: str) -> list[str]:
    """Every distinct command line, as a shell takes it: it is read up to its end, where it asks for help."""
    lines = set()
    for plan in _planned():
        words = plan.launch.argv[plan.launch.argv.index("--model") :]
        told = (key_file if word == API_KEY_FILE else word for word in words)
        lines.add(shlex.join((program, *told, "--help")))
    return sorted(lines)


def _planned() -> Iterator[AnyServicePlan]:
    for tag, count in CARDS:
        for model in MODELS:
            for settings in SETTINGS:
                service = {"name": "chat", "model": model, "runtime": "llama.cpp", "max_model_len": 4096, **settings}
                host: dict[str, Any] = {"gpu_tag": tag, "memory_mib": 131072, "services": [service]}
                if tag != "cpu":
                    host["gpu_count"] = service["gpus"] = count
                try:
                    (plan,) = plan_hosts(load_hosts([("h1", host)]), load_catalog())
                except InputError:
                    continue
                yield from plan.all_services
