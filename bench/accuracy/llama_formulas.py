"""What llama.cpp allocates, as formulas over GGUF metadata; run as a program, they are held against the oracle.

The context is exact. The compute buffer is bounded from above: it is the peak of a graph allocator that reuses memory,
so the formulas add up what is alive at the widest points of a layer. `python -m bench.accuracy.llama_formulas`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "llamacpp.json"
MIB = 1024**2
CELL_PADDING = 256
FLOAT = 4
MASK_BYTES = {True: 2, False: 4}
KV_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32, "q4_0": 18 / 32}
# Where a file states no pattern, llama.cpp has one: of so many layers, the last one sees everything.
BUILT_IN_PATTERNS = {"gpt-oss": 2, "cohere2": 4, "gemma3": 6}
# Floats for each token that the bounds below miss at most: router logits, rotation matrices, alignment.
SLACK_FLOATS = 512


def padded(length: int) -> int:
    """`length` cells, as llama.cpp rounds them up."""
    return -(-length // CELL_PADDING) * CELL_PADDING


@dataclass(frozen=True, slots=True)
class Run:
    """How a model is run: `ctx` counts all slots together."""

    ctx: int
    slots: int
    kv_type: str
    ubatch: int
    unified: bool = False
    swa_full: bool = False
    flash: bool = True

    @property
    def streams(self) -> int:
        """Separate parts of the cache: one for each slot, unless all share one."""
        return 1 if self.unified else self.slots

    @property
    def cells(self) -> int:
        """Tokens that one stream holds in a layer that sees everything."""
        return padded(padded(self.ctx) // self.streams)

    def window_cells(self, window: int) -> int:
        """Tokens that one stream holds in a layer with a sliding window."""
        if self.swa_full:
            return self.cells
        return padded(min(self.cells, window * (self.slots if self.unified else 1) + self.ubatch))

    @property
    def tokens(self) -> int:
        """Tokens of one physical batch."""
        return min(self.ubatch, self.cells * self.streams)


class Model:
    """One model's metadata, with llama.cpp's defaults."""

    def __init__(self, architecture: str, metadata: Mapping[str, Any]) -> None:
        self.architecture = architecture
        self._metadata = metadata
        self.layers = int(metadata["block_count"])
        self.embedding = int(metadata["embedding_length"])
        self.vocab = int(metadata["vocab_size"])
        self.heads = int(metadata["attention.head_count"])
        self.window = int(metadata.get("attention.sliding_window", 0))
        self.latent = "attention.key_length_mla" in metadata

    def get(self, key: str, default: int = 0) -> int:
        """A whole number of the metadata."""
        return int(self._metadata.get(key, default))

    def kv_heads(self, layer: int) -> int:
        """Key/value heads of a layer."""
        heads = self._metadata["attention.head_count_kv"]
        return int(heads[layer] if isinstance(heads, list) else heads)

    def is_windowed(self, layer: int) -> bool:
        """Whether a layer only looks back `window` tokens."""
        if not self.window:
            return False
        pattern = self._metadata.get("attention.sliding_window_pattern", BUILT_IN_PATTERNS.get(self.architecture, 1))
        return bool(pattern[layer]) if isinstance(pattern, list) else layer % pattern < pattern - 1

    def is_recurrent(self, layer: int) -> bool:
        """Whether a layer keeps a state of fixed size instead of keys and values."""
        interval = self.get("full_attention_interval", 4)
        return self.get("ssm.inner_size") > 0 and (layer + 1) % interval != 0

    def head_lengths(self, layer: int) -> tuple[int, int]:
        """Elements of one key and one value; with latent attention the value is part of the key."""
        suffix = "_swa" if self.is_windowed(layer) and "attention.key_length_swa" in self._metadata else ""
        key = self.get(f"attention.key_length{suffix}", self.embedding // self.heads)
        value = self.get(f"attention.value_length{suffix}", self.embedding // self.heads)
        return key, 0 if self.latent else value


def context_bytes(model: Model, run: Run) -> float:
    """The key/value cache and the recurrent states, exactly."""
    return sum(layer_context_bytes(model, run, layer) for layer in range(model.layers))


def layer_context_bytes(model: Model, run: Run, layer: int) -> float:
    """What one layer adds to the context."""
    if model.is_recurrent(layer):
        inner, state = model.get("ssm.inner_size"), model.get("ssm.state_size")
        convolution = (model.get("ssm.conv_kernel") - 1) * (inner + 2 * model.get("ssm.group_count") * state)
        return FLOAT * run.slots * (convolution + state * inner)
    key, value = model.head_lengths(layer)
    cells = run.window_cells(model.window) if model.is_windowed(layer) else run.cells
    if not run.flash and value:
        # Without flash attention the values of all layers are padded to the longest.
        longest = max(model.kv_heads(other) * model.head_lengths(other)[1] for other in range(model.layers))
        return cells * run.streams * (model.kv_heads(layer) * key + longest) * KV_BYTES[run.kv_type]
    return cells * run.streams * model.kv_heads(layer) * (key + value) * KV_BYTES[run.kv_type]


def compute_bytes(model: Model, run: Run, *, server: bool) -> float:
    """The compute buffer, from above. Only llama-server computes logits for no more than one token of each slot."""
    query = _query(model)
    # A quantized cache has queries rotated, which takes another copy; without flash attention there are still more.
    copies = 4 if not run.flash else 2 if run.kv_type.startswith("q") else 1
    scores = 0 if run.flash else model.heads * run.cells + query
    attention = _attention_floats(model, query * min(2, copies)) + scores + SLACK_FLOATS
    feed_forward = _feed_forward_floats(model, query * copies) + SLACK_FLOATS
    # A recurrent layer reads a copy of its states and writes another.
    states = 2 * layer_context_bytes(model, run, 0) if model.is_recurrent(0) else 0
    layer = max(attention * FLOAT * run.tokens + states, feed_forward * FLOAT * run.tokens)
    logits = model.vocab * FLOAT * (run.slots if server else run.tokens)
    if server:
        return layer + logits + _mask_bytes(model, run)
    # What the last layer leaves behind when the logits of a whole batch are computed.
    rest = 5 * model.embedding + query * min(2, copies)
    if model.latent:
        rest += min(6, model.get("expert_used_count")) * model.embedding
    return max(layer, logits + rest * FLOAT * run.tokens) + _mask_bytes(model, run)


def _mask_bytes(model: Model, run: Run) -> float:
    """One attention mask for each kind of layer, over a batch spread evenly over streams."""
    cells = run.cells + (run.window_cells(model.window) if model.window else 0)
    return cells * run.tokens * MASK_BYTES[run.flash]


def _query(model: Model) -> int:
    """Elements of all query heads of the widest layer."""
    if model.latent:
        return model.heads * model.get("attention.value_length_mla")
    return model.heads * model.get("attention.key_length", model.embedding // model.heads)


def _attention_floats(model: Model, query: int) -> int:
    """Floats for each token, at the widest point of an attention layer."""
    embedding = model.embedding
    if model.latent:
        # Of each head: the query, its rotated part, what stands for its other part, and both joined.
        rank, rope = model.get("attention.kv_lora_rank"), model.get("rope.dimension_count")
        head = model.get("attention.key_length_mla") + rope + rank + (rank + rope)
        return model.heads * head + 6 * embedding + 4096
    keys = max(model.kv_heads(layer) * sum(model.head_lengths(layer)) for layer in range(model.layers))
    if not model.get("ssm.inner_size"):
        return 3 * embedding + 2 * query + keys
    # Gated attention holds queries, their norm and the gate; a delta net holds its convolution three times.
    convolved = model.get("ssm.inner_size") + 2 * model.get("ssm.group_count") * model.get("ssm.state_size")
    return 3 * embedding + max(4 * query + 2 * keys, 3 * convolved)


def _feed_forward_floats(model: Model, query: int) -> int:
    """Floats for each token, at the widest point of a feed-forward block, dense or of experts."""
    residual = 3 * model.embedding + max(query, model.embedding if model.get("ssm.inner_size") else 0)
    residual += model.embedding if model.architecture == "cohere2" else 0
    dense = 0 if _only_experts(model) else 3 * max(model.get("feed_forward_length"), model.embedding // 3)
    return residual + max(dense, _expert_floats(model))


def _only_experts(model: Model) -> bool:
    has_dense = model.get("leading_dense_block_count") > 0 or model.architecture == "gemma4"
    return model.get("expert_count") > 0 and not has_dense


def _expert_floats(model: Model) -> int:
    """Gate, up and their product for each chosen expert; and its output, where that finds no room in the former."""
    used = model.get("expert_used_count")
    inner = used * model.get("expert_feed_forward_length", model.get("feed_forward_length"))
    output = used * model.embedding
    finds_room = output < 2 * inner and not model.get("expert_shared_count")
    return 3 * inner + (0 if finds_room else output)


def _run_of(case: Mapping[str, Any]) -> Run:
    names = ("ctx", "slots", "kv_type", "ubatch", "unified", "swa_full", "flash")
    return Run(**{name: case[name] for name in names if name in case})


def main() -> None:
    """Print, for each kind of result, the least and the greatest excess of the formulas, in percent and MiB."""
    results = json.loads(RESULTS.read_text())
    models = {name: Model(facts["architecture"], facts["metadata"]) for name, facts in results["models"].items()}
    formulas: dict[str, Callable[[Model, Run], float]] = {
        "context_mib": context_bytes,
        "compute_mib": lambda model, run: compute_bytes(model, run, server=False),
        "server_compute_mib": lambda model, run: compute_bytes(model, run, server=True),
    }
    excesses: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for case in results["cases"]:
        if "gpu_mib" in case:
            continue
        for key, formula in formulas.items():
            stated = formula(models[case["model"]], _run_of(case)) / MIB
            # The oracle rounds down.
            excesses[key][case["model"]].append((100 * (stated / case[key] - 1), stated - case[key]))
    for key, by_model in excesses.items():
        print(key)  # noqa: T201 - the report
        for name, pairs in by_model.items():
            percents, mibs = zip(*pairs, strict=True)
            line = f"  {name:20} {min(percents):6.1f} to {max(percents):6.1f} %"
            print(f"{line} {min(mibs):8.1f} to {max(mibs):8.1f} MiB, {len(pairs)} cases")  # noqa: T201


if __name__ == "__main__":
    main()
