"""What a config.json means where it leaves keys out: defaults.toml, read once."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any


@functools.cache
def _tables() -> Mapping[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath("defaults.toml").read_text(encoding="utf-8"))


def text_defaults(model_type: str) -> Mapping[str, Any]:
    """Keys of a text model."""
    found: Mapping[str, Any] = _tables()["text"].get(model_type, {})
    return found


def tower_defaults(model_type: str) -> Mapping[str, Any]:
    """Keys of a `vision_config` or `audio_config`."""
    found: Mapping[str, Any] = _tables()["tower"].get(model_type, {})
    return found
