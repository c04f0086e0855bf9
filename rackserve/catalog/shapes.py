"""The shape of a catalogue model, read from its `config` facts with the reader that config.json files go through."""

from __future__ import annotations

import functools
import json

from rackserve.catalog.architectures.reader import read_config
from rackserve.domain.model import LanguageModel
from rackserve.domain.shape import Shape


def shape_of(model: LanguageModel) -> Shape:
    """The shape of a model. Raises InputError for facts that do not describe one; the loader has checked ours."""
    return _shape(json.dumps(model.config, sort_keys=True), model.name)


@functools.lru_cache(maxsize=256)
def _shape(config: str, name: str) -> Shape:
    return read_config(json.loads(config), f"models.{name}.config")
