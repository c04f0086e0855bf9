"""The planner against engines' start logs: one CSV row is one start on a real GPU, with what the engine said it took.

The rows carry their sources. A row holds the model's dimensions, so that no config.json has to be downloaded; what the
columns do not say (rotary scaling, a vision tower) is the published config of that model, in FAMILIES.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench.accuracy.spread import GIB, percent
from rackserve.catalog.architectures.reader import read_config
from rackserve.catalog.loader import load_catalog
from rackserve.domain.shape import Shape
from rackserve.planning.engine_facts import engine_for
from rackserve.planning.quantize import weight_format
from rackserve.planning.request import Request
from rackserve.planning.sized import Sizing
from rackserve.planning.sizing import size
from rackserve.planning.weights import weights

CASES = Path(__file__).with_name("data") / "memory_cases.csv"
_GPU_TAGS = {"h100-80gb": "h100-sxm-80gb"}
# The CSV's names of formats, by the names that the planner takes; empty: the config says it.
_FORMATS = {"none": "", "fp8-w8a8-dynamic": "fp8", "mxfp4": ""}
# Made while loading, from a 16-bit checkpoint.
ONLINE = frozenset({"fp8-online"})
_YARN = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}
_SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "image_size": 896,
}
# What the model's name has, its model_type, and what its published config says beyond the columns. The first match
# counts.
FAMILIES: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("deepseek-v2", "deepseek_v2", {"max_position_embeddings": 163840, "q_lora_rank": None, "rope_scaling": _YARN}),
    ("gpt-oss", "gpt_oss", {"quantization_config": {"quant_method": "mxfp4"}}),
    ("gemma-2", "gemma2", {"max_position_embeddings": 8192}),
    ("gemma-3", "gemma3_text", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    ("qwen1.5-moe", "qwen2_moe", {"max_position_embeddings": 8192}),
    ("qwen2.5", "qwen2", {"max_position_embeddings": 32768}),
    ("qwen3", "qwen3", {"max_position_embeddings": 40960}),
    ("granite", "granite", {"tie_word_embeddings": True}),
    ("phi-4", "phi3", {"max_position_embeddings": 16384}),
    ("mixtral", "mixtral", {"max_position_embeddings": 32768}),
    ("mistral", "mistral", {}),
    ("", "llama", {}),
)
# Columns by the names that they have in a config.json.
_COLUMNS = MappingProxyType(
    {
        "num_hidden_layers": "layers",
        "hidden_size": "hidden",
        "num_attention_heads": "heads",
        "num_key_value_heads": "kv_heads",
        "head_dim": "head_dim",
        "vocab_size": "vocab",
        "intermediate_size": "intermediate",
        "moe_intermediate_size": "moe_intermediate",
        "num_experts_per_tok": "experts_per_tok",
        "n_shared_experts": "shared_experts",
        "first_k_dense_replace": "first_dense",
        "kv_lora_rank": "kv_lora_rank",
        "qk_rope_head_dim": "qk_rope_head_dim",
        "qk_nope_head_dim": "qk_nope_head_dim",
        "v_head_dim": "v_head_dim",
        "sliding_window": "sliding_window",
    }
)
_EXPERT_KEYS = {"deepseek_v2": "n_routed_experts", "gpt_oss": "num_local_experts", "mixtral": "num_local_experts"}


@dataclass(frozen=True, eq=False)
class Case:
    """One start of an engine."""

    row: Mapping[str, str]

    def number(self, column: str) -> float | None:
        """A number, None where the log did not have it."""
        return float(self.row[column]) if self.row[column] else None

    @property
    def name(self) -> str:
        """The model, and how it is served."""
        row = self.row
        parts = [row["model"].rpartition("/")[2], row["quant"], f"TP{row['tp']} PP{row['pp']}", self.version]
        return " ".join(part for part in parts if part != "none")

    @property
    def version(self) -> str:
        """The runtime's version, without what stands behind it."""
        return self.row["runtime_version"].split()[0].replace(".x", ".0")

    @property
    def gpus(self) -> int:
        """GPUs of the instance."""
        return int(self.row["tp"]) * int(self.row["pp"])

    @property
    def starts(self) -> bool:
        """Whether the engine came up."""
        return self.row["outcome"] == "starts"

    @property
    def quantization(self) -> str:
        """As the planner calls it."""
        return _FORMATS.get(self.row["quant"], self.row["quant"])

    def config(self) -> dict[str, Any]:
        """The config.json of this model, as far as memory goes; for its own 16-bit type whatever was served."""
        name = self.row["model"].lower()
        _, family, extra = next(entry for entry in FAMILIES if entry[0] in name)
        values: dict[str, Any] = {key: int(self.row[column]) for key, column in _COLUMNS.items() if self.row[column]}
        if self.row["experts"]:
            values[_EXPERT_KEYS.get(family, "num_experts")] = int(self.row["experts"])
        if family == "qwen2_moe":
            values["shared_expert_intermediate_size"] = values["intermediate_size"]
        dtype = "bfloat16" if self.row["weight_dtype"] == "float32" else self.row["weight_dtype"]
        values |= {"max_position_embeddings": 131072, "torch_dtype": dtype, "model_type": family, **extra}
        if family != "gemma3_text":
            return values
        architectures = ["Gemma3ForConditionalGeneration"]
        return {"model_type": "gemma3", "architectures": architectures, "text_config": values, "vision_config": _SIGLIP}

    @cached_property
    def shape(self) -> Shape:
        """The model as the planner reads it, in the data type that was served."""
        shape = read_config(self.config(), self.row["model"])
        if self.row["weight_dtype"] != "float32":
            return shape
        return read_config({**self.config(), "torch_dtype": "float32"}, self.row["model"])

    def request(self) -> Request | None:
        """What to size; None where the log does not say the share of memory."""
        row, total, share = self.row, self.number("gpu_total_gib"), self.number("gpu_mem_util")
        if total is None or share is None:
            return None
        catalog, seqs, batched = load_catalog(), self.number("max_num_seqs"), self.number("max_num_batched_tokens")
        tag = row["gpu"].lower().replace(" ", "-")
        return Request(
            model=row["model"],
            shape=self.shape,
            gpu=catalog.gpus[_GPU_TAGS.get(tag, tag)],
            total_mib=int(total * 1024),
            runtime=row["runtime"],
            version=self.version,
            engine=engine_for(catalog, row["runtime"], self.version),
            gpus=self.gpus,
            tensor_parallel=int(row["tp"]),
            pipeline_parallel=int(row["pp"]),
            quantization=self.quantization,
            kv_cache_dtype="fp8" if row["kv_dtype"] == "fp8" else "auto",
            max_model_len=int(row["max_model_len"]),
            concurrency=int(seqs) if seqs else None,
            avg_tokens=1 if seqs else None,
            batched_tokens=int(batched) if batched else None,
            utilization=share,
        )

    def checkpoint_bytes(self) -> int:
        """Bytes of the files that it was served from: what is converted while loading is 16 bits wide in them."""
        stored = "" if self.row["quant"] in ONLINE else weight_format(self.quantization or "none") or ""
        shape = read_config(self.config(), self.row["model"])
        return weights(shape, stored, 1).stages[0]


@dataclass(frozen=True, slots=True)
class Compared:
    """One case beside the planner's figures; no sizing where the log says too little or the planner refused."""

    case: Case
    weights_gib: float
    sizing: Sizing | None
    refusal: str = ""

    @property
    def weights_error(self) -> float:
        """Percent."""
        return percent(self.weights_gib, self.case.number("weights_gib_per_gpu") or 0)

    @property
    def kv_error(self) -> float | None:
        """Percent, of the tokens where the log has them, else of the bytes; None without a sizing."""
        if self.sizing is None:
            return None
        tokens, gib = self.case.number("kv_tokens"), self.case.number("kv_gib")
        if tokens:
            return percent(self.sizing.kv_cache_tokens, tokens)
        return percent(self.sizing.kv_cache_bytes / GIB, gib) if gib else None


def read_cases(path: Path = CASES) -> list[Case]:
    """The rows of a CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Case(row) for row in csv.DictReader(file)]


def compare(path: Path = CASES) -> Iterator[Compared]:
    """Every row with the planner's figures for exactly this runtime, GPU, split and share of memory."""
    for case in read_cases(path):
        held = weights(
            case.shape, weight_format(case.quantization or "none") or "", int(case.row["tp"]), int(case.row["pp"])
        )
        request = case.request()
        sized = size(request) if request else "the log does not state the share of memory"
        refusal = sized if isinstance(sized, str) else ""
        yield Compared(case, held.bytes_per_gpu / GIB, None if isinstance(sized, str) else sized, refusal)
