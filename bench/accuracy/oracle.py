"""The planner against vLLM's own code, over the configs of published models (results/vllm-*.json, see README.md).

Weights are compared as the model is built. The padding of MXFP4 experts is part of that; the copies of MLA's kv_b_proj
are made once the weights are there, which never happens without a GPU: the planner counts them, the oracle cannot.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.accuracy.spread import GIB, percent
from rackserve.catalog.architectures.reader import read_config_file
from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError
from rackserve.domain.shape import AttentionCache, Shape
from rackserve.planning.engine_facts import engine_for
from rackserve.planning.engine_instance import kv_item_bytes, kv_layouts
from rackserve.planning.kv_cache import KvLayout
from rackserve.planning.parallel import Parallel
from rackserve.planning.request import Request
from rackserve.planning.weights import Weights, weights

RESULTS = Path(__file__).with_name("results") / "vllm-0.32.0.json"
VERSION = "0.32.0"
BATCHED_TOKENS = 8192


@dataclass(frozen=True, eq=False)
class OracleCase:
    """One row of the results, with the planner's reading of the same config."""

    row: Mapping[str, Any]
    shape: Shape

    @property
    def name(self) -> str:
        """Config and split."""
        row = self.row
        parts = [row["config"].removesuffix("_config.json").partition("--")[2], f"TP{row['tp']} PP{row['pp']}"]
        parts += [f"{row['quantization']} made while loading"] if row["quantization"] else []
        parts += [f"KV {row['kv_cache_dtype']}"] if row["kv_cache_dtype"] != "auto" else []
        return " ".join(parts)

    @property
    def gpus(self) -> int:
        """GPUs of the instance."""
        return int(self.row["tp"] * self.row["pp"])

    @property
    def weights_bytes(self) -> int:
        """Parameters and buffers of vLLM's model on one GPU, of the heaviest stage."""
        return int(self.row["weights_bytes"] + self.row["buffers_bytes"])

    @property
    def plain(self) -> bool:
        """Whether each layer keeps keys and values of the whole context, and nothing is quantized."""
        shape = self.shape
        caches = [cache for layer in shape.layers for cache in layer.caches]
        full = all(isinstance(cache, AttentionCache) for cache in caches) and len(caches) == len(shape.layers)
        return full and not (shape.windowed or shape.quantization or self.row["quantization"])

    def held(self) -> Weights:
        """The planner's weights."""
        # The oracle's own quantization is FP8 made while loading, which converts towers as well.
        converted = self.row["quantization"] or ""
        return weights(self.shape, converted, self.row["tp"], self.row["pp"], converted)

    @property
    def weights_error(self) -> float:
        """Percent, as built."""
        held = self.held()
        built = [held.stage(stage) - self.copies(stage) for stage in range(len(held.stages))]
        return percent(max(built), self.weights_bytes)

    def copies(self, stage: int) -> int:
        """Bytes that the planner counts beside the built model of a stage, MLA's copies of kv_b_proj."""
        return self.held().prepared[stage] if self.shape.latent else 0

    def layouts(self) -> tuple[KvLayout, ...]:
        """The planner's KV cache of each stage."""
        request, row = self.request(80), self.row
        item = kv_item_bytes(request)
        if isinstance(item, str):
            raise TypeError(item)
        # The planner's own, so that this cannot drift from what it plans with.
        return kv_layouts(request, Parallel(row["tp"], row["pp"], 1, ""), item)

    def kv_errors(self) -> Iterator[tuple[Mapping[str, Any], float]]:
        """Percent, for each capacity that vLLM was asked for."""
        layouts, engine = self.layouts(), engine_for(load_catalog(), "vllm", VERSION)
        steps = self.row["pp"] + (engine.steps_ahead if engine else 0)
        for capacity in self.row["capacities"]:
            if "error" in capacity:
                continue
            in_flight = steps * capacity.get("max_num_batched_tokens", BATCHED_TOKENS)
            free, length = capacity["free_gib"] * GIB, capacity["max_model_len"]
            tokens = min(lay.tokens(free, length, in_flight) for lay in layouts)
            yield capacity, percent(tokens, capacity["tokens"])

    def request(self, total_gib: float, length: int | None = None, share: float | None = None) -> Request:
        """What the planner is asked on H100s of this much memory; how much they have is the only thing that changes."""
        catalog = load_catalog()
        return Request(
            model=self.row["config"],
            shape=self.shape,
            gpu=catalog.gpus["h100-sxm-80gb"],
            total_mib=int(total_gib * 1024),
            runtime="vllm",
            version=VERSION,
            engine=engine_for(catalog, "vllm", VERSION),
            gpus=self.gpus,
            tensor_parallel=self.row["tp"],
            pipeline_parallel=self.row["pp"],
            quantization=self.row["quantization"] or "",
            kv_cache_dtype=self.row["kv_cache_dtype"],
            max_model_len=length,
            batched_tokens=BATCHED_TOKENS,
            utilization=share,
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """Configs that one side does not know: by name, with its reason."""

    name: str
    by_planner: str
    by_vllm: str


def read_rows(path: Path = RESULTS) -> list[dict[str, Any]]:
    """All rows, those that vLLM refused too."""
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return rows


@lru_cache(maxsize=512)
def read_shape(path: Path) -> Shape | str:
    """The planner's reading, or why there is none."""
    try:
        return read_config_file(path)
    except InputError as error:
        return "; ".join(problem.message for problem in error.problems)


def cases(configs: Path, path: Path = RESULTS) -> list[OracleCase]:
    """The rows that both know."""
    found = []
    for row in read_rows(path):
        shape = read_shape(configs / row["config"])
        if "error" not in row and not isinstance(shape, str):
            found.append(OracleCase(row, shape))
    return found


def refused(configs: Path, path: Path = RESULTS) -> list[Refused]:
    """The configs that one of both does not know."""
    found: dict[str, Refused] = {}
    for row in read_rows(path):
        shape = read_shape(configs / row["config"])
        if "error" in row or isinstance(shape, str):
            name = row["config"].removesuffix("_config.json")
            found.setdefault(name, Refused(name, shape if isinstance(shape, str) else "", row.get("error", "")))
    return list(found.values())


def checkpoints(path: Path = RESULTS) -> dict[str, int]:
    """Bytes of each checkpoint by config: what vLLM loads of it on one GPU, as it is stored."""
    return {
        row["config"]: row["weights_bytes"]
        for row in read_rows(path)
        if "error" not in row and row["tp"] == row["pp"] == 1 and not row["quantization"]
    }
