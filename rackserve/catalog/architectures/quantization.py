"""How a checkpoint is quantized: the number format of each of its matrices, from `quantization_config`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from rackserve.catalog.architectures.config import Config
from rackserve.catalog.architectures.module_names import Patterns, acceptable, experts_of, plain
from rackserve.domain.shape import Layer, Matrix, Shape

_BLOCK, _EXPERT_BLOCK, _SMALL_BLOCK = "fp8-block", "fp8-block-experts", "fp8-block-ue8m0"
_TENSOR, _CHANNEL, _NVFP4, _MXFP4, _MXFP8 = "fp8-tensor", "fp8-channel", "nvfp4", "mxfp4", "mxfp8"
# ModelOpt's names.
_ALGORITHMS: Mapping[str, str] = {
    "FP8": _TENSOR,
    "FP8_PB_WO": _BLOCK,
    "FP8_PER_CHANNEL_PER_TOKEN": _CHANNEL,
    "NVFP4": _NVFP4,
    "W4A16_NVFP4": _NVFP4,
    "NVFP4_AWQ": _NVFP4,
    "MXFP8": _MXFP8,
    "W4A8_MXFP4_FP8": _MXFP4,
    "W4A16_AWQ": "awq",
    "W4A8_AWQ": "awq",
    "INT8_SQ": "int8",
}
_Sizes = Mapping[tuple[int, int | None], str]
_SYMMETRIC: _Sizes = {
    (8, None): "int8",
    (4, 128): "int4-g128",
    (4, 64): "int4-g64",
    (4, 32): "int4-g32",
    (4, None): "int4-channel",
}
_ASYMMETRIC: _Sizes = {(4, 128): "awq", (4, 64): "awq-g64", (4, 32): "awq-g32"}
_FOUR, _EIGHT, _MX_GROUP = 4, 8, 32
_KNOWN_SIZES = "known: 8; 4 in groups of 32, 64, 128"
_EXPERTS = "experts.w"


@dataclass(frozen=True, slots=True)
class Stored:
    """What a checkpoint stores: a format for all linears, another for experts or for layers it names, and exceptions.

    towers: whether the format reaches what is beside the language model, unless an exception names it. kv_cache: the
    format that the checkpoint has scales of the KV cache for, which vLLM then keeps it in.
    """

    label: str = ""
    linear: str = ""
    experts: str | None = None
    named: Mapping[str, str] | None = None
    ignored: Patterns = field(default_factory=Patterns)
    towers: bool = True
    kv_cache: str = ""

    def format_of(self, name: str) -> str:
        """The format of one matrix of the checkpoint, empty for the model's own data type."""
        if self.named is not None:
            return self.named.get(name) or self.named.get(experts_of(name), "")
        if name in self.ignored:
            return ""
        return self.experts if self.experts is not None and _EXPERTS in name else self.linear


def read_quantization(config: Config, text: Config) -> Stored:
    """The checkpoint's quantization; the table may stand in the outer or in the text config."""
    table = config.table("quantization_config")
    if not table.values:
        table = text.table("quantization_config")
    if not table.values:
        return Stored()
    method = table.text("quant_method") or ("modelopt" if table.has("quant_algo") else "")
    reader = _METHODS.get(method)
    if reader is None:
        known = ", ".join(sorted(_METHODS))
        table.problem("quant_method", f"{method or 'none'} is not known", hint=f"known: {known}")
        return Stored()
    return replace(reader(table, text), kv_cache=_kv_cache(table))


def _kv_cache(table: Config) -> str:
    if table.text("kv_cache_quant_algo").upper() == "FP8":
        return "fp8"
    # A table in compressed-tensors, a name where ModelOpt's own file has it.
    if isinstance(table.values.get("kv_cache_scheme"), str):
        return "fp8" if table.text("kv_cache_scheme").upper() == "FP8" else ""
    scheme = table.table("kv_cache_scheme")
    return "fp8" if scheme.integer("num_bits", default=0, least=0) == _EIGHT else ""


def _fp8(table: Config, text: Config) -> Stored:
    if not table.sequence("weight_block_size"):
        # FBGEMM's checkpoints have a scale per row.
        linear = _CHANNEL if table.text("quant_method") == "fbgemm_fp8" else _TENSOR
        return Stored(linear, linear, ignored=_ignored(table))
    if table.integers("weight_block_size") != [128, 128]:
        table.problem("weight_block_size", "only blocks of 128 x 128 are known")
    # Where experts have an algorithm of their own, the list says what is not of that kind; it stays FP8.
    ignored = Patterns() if table.has("moe_quant_algo") else _ignored(table)
    return Stored(_BLOCK, *_block_formats(table, text), ignored=ignored)


def _block_formats(table: Config, text: Config) -> tuple[str, str]:
    """Formats of linears and of experts.

    DeepSeek V4 stores scales as exponents, and its experts are MXFP4 unless it says so (vLLM's
    models/deepseek_v4/quant_config.py).
    """
    if not text.has("compress_ratios"):
        return _BLOCK, _EXPERT_BLOCK
    kind = text.text("expert_dtype", "fp4" if text.text("model_type") == "deepseek_v4" else "fp8")
    if table.text("moe_quant_algo") == "NVFP4":
        return _SMALL_BLOCK, _NVFP4
    if kind not in ("fp4", "fp8"):
        text.problem("expert_dtype", f"{kind} is not known", hint="known: fp4, fp8")
    return _SMALL_BLOCK, _MXFP4 if kind == "fp4" else _SMALL_BLOCK


def _integer(table: Config, _: Config) -> Stored:
    bits, group = table.integer("bits", "w_bit", "num_bits", default=4), _group(table, "group_size", "q_group_size")
    method = table.text("quant_method")
    if method.startswith("gptq"):
        symmetric = table.flag("sym", default=True)
    else:
        symmetric = not table.flag("zero_point", default=True)
    linear = _integer_format(table, bits, group, symmetric=symmetric)
    return Stored(f"{method}-int{bits}", linear, ignored=_ignored(table))


def _group(table: Config, *names: str) -> int | None:
    """Columns that share a scale; -1 means that all of a row do."""
    if any(table.values.get(name) == -1 for name in names):
        return None
    return table.optional(*names)


def _integer_format(table: Config, bits: int, group: int | None, *, symmetric: bool = True) -> str:
    formats = _SYMMETRIC if symmetric or bits == _EIGHT else _ASYMMETRIC
    found = formats.get((bits, None if bits == _EIGHT else group))
    if found is None:
        table.problem("bits", f"{bits} bits in groups of {group} are not known", hint=_KNOWN_SIZES)
        return ""
    return found


def _compressed(table: Config, _: Config) -> Stored:
    groups = table.table("config_groups")
    names = sorted(groups.values)
    if not names:
        table.problem("config_groups", "is missing or empty")
        return Stored()
    found = [_compressed_group(groups.table(name)) for name in names]
    if len({stored for stored, _ in found}) > 1:
        groups.problem(names[1], "groups of different formats are not known")
    linear, targets = found[0]
    only_experts = bool(targets) and all("expert" in target for target in targets)
    return Stored(
        f"compressed-tensors {linear}",
        "" if only_experts else linear,
        # Block scales of experts follow another rule than those of linears.
        _EXPERT_BLOCK if linear == _BLOCK else linear if only_experts else None,
        ignored=_ignored(table),
        towers=False,
    )


def _compressed_group(group: Config) -> tuple[str, list[str]]:
    weights = group.table("weights")
    bits, strategy = weights.integer("num_bits"), weights.text("strategy", "channel")
    if weights.text("type", "int") == "float":
        return _float_format(weights, bits, strategy), group.texts("targets")
    per_group = _group(weights, "group_size") if strategy == "group" else None
    symmetric = weights.flag("symmetric", default=True)
    return _integer_format(weights, bits, per_group, symmetric=symmetric), group.texts("targets")


def _float_format(weights: Config, bits: int, strategy: str) -> str:
    if bits == _EIGHT:
        if strategy == "group" and weights.optional("group_size") == _MX_GROUP:
            return _MXFP8
        return {"block": _BLOCK, "tensor": _TENSOR}.get(strategy, _CHANNEL)
    if bits != _FOUR:
        weights.problem("num_bits", f"{bits}-bit floating point is not known", hint="known: 4, 8")
    return _MXFP4 if weights.integer("group_size", default=16) == _MX_GROUP else _NVFP4


def _mxfp4(table: Config, _: Config) -> Stored:
    return Stored(_MXFP4, "", _MXFP4, ignored=_ignored(table))


def _modelopt(table: Config, _: Config) -> Stored:
    algorithm = table.text("quant_algo")
    if algorithm == "MIXED_PRECISION":
        return Stored("modelopt mixed", named=_named(table), ignored=_ignored(table))
    found = _ALGORITHMS.get(algorithm)
    if found is None:
        table.problem("quant_algo", f"{algorithm or 'none'} is not known", hint=f"known: {', '.join(_ALGORITHMS)}")
        return Stored()
    experts = _EXPERT_BLOCK if found == _BLOCK else None
    return Stored(f"modelopt {found}", found, experts, ignored=_ignored(table))


def _named(table: Config) -> Mapping[str, str]:
    """The format of each module that the checkpoint names, experts under the name of their block."""
    layers = table.table("quantized_layers")
    if not layers.values:
        table.problem("quantized_layers", "is missing or empty")
    named: dict[str, str] = {}
    for key in layers.values:
        algorithm = layers.table(key).text("quant_algo")
        if algorithm not in _ALGORITHMS:
            layers.problem(key, f"{algorithm or 'none'} is not known", hint=f"known: {', '.join(_ALGORITHMS)}")
        name = plain(key)
        named[experts_of(name) or name] = _ALGORITHMS.get(algorithm, "")
    return named


_METHODS: Mapping[str, Callable[[Config, Config], Stored]] = {
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "gptq": _integer,
    "gptq_marlin": _integer,
    "awq": _integer,
    "awq_marlin": _integer,
    "compressed-tensors": _compressed,
    "mxfp4": _mxfp4,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "modelopt_mixed": _modelopt,
}


def _ignored(table: Config) -> Patterns:
    """Modules that stay unquantized, under the names that the methods gave the list."""
    accepted = []
    for key in ("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules"):
        for entry in table.texts(key):
            if entry.startswith("re:") and not acceptable(entry[3:]):
                table.problem(key, f"{entry[:60]!r} is not an expression that can be matched")
            else:
                accepted.append(entry)
    return Patterns(accepted)


def with_formats(shape: Shape, stored: Stored) -> Shape:
    """The shape with the stored format of each of its matrices."""
    if not stored.label:
        return shape
    layers = tuple(
        Layer(tuple(_with_format(f"layers.{index}.", matrix, stored) for matrix in layer.matrices), layer.caches)
        for index, layer in enumerate(shape.layers)
    )
    extras = tuple(_beside(matrix, stored) for matrix in shape.extras)
    head = shape.head
    if head is not None and stored.named and stored.named.get(head.name):
        head = replace(head, stored=stored.named[head.name])
    return replace(
        shape, layers=layers, extras=extras, head=head, quantization=stored.label, kv_cache_dtype=stored.kv_cache
    )


def _with_format(prefix: str, matrix: Matrix, stored: Stored) -> Matrix:
    if not matrix.linear or matrix.stored:
        return matrix
    found = stored.format_of(f"{prefix}{matrix.name}")
    return replace(matrix, stored=found) if found else matrix


def _beside(matrix: Matrix, stored: Stored) -> Matrix:
    """A matrix of a tower: lists name its modules one by one, so that one of them stands for all."""
    reached = stored.towers and stored.named is None and bool(stored.linear)
    if not reached or not matrix.linear or stored.ignored.reaches(matrix.name.split(".", 1)[0]):
        return matrix
    return replace(matrix, stored=stored.linear)
