"""What a config.json means where it leaves keys out (defaults.toml), and which classes there are (classes.toml)."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any


@functools.cache
def _tables(name: str = "defaults.toml") -> Mapping[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


def families_of_class(name: str) -> list[str]:
    """Text models that a class of `architectures` stands for, empty for a class that nobody listed."""
    found: list[str] = _tables("classes.toml")["classes"].get(name, [])
    return found


def text_defaults(model_type: str) -> Mapping[str, Any]:
    """Keys of a text model."""
    found: Mapping[str, Any] = _tables()["text"].get(model_type, {})
    return found


def tower_defaults(model_type: str) -> Mapping[str, Any]:
    """Keys of a `vision_config` or `audio_config`."""
    found: Mapping[str, Any] = _tables()["tower"].get(model_type, {})
    return found
