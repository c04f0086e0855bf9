"""Write GGUF files that have a full header and no weights.

The header (metadata and tensor descriptions) is real; the file is extended to its full length with a hole, which
takes no disk space. That is all llama.cpp needs to work out how much memory a model takes.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from math import prod
from pathlib import Path

import gguf
import numpy as np

from bench.accuracy.gguf_shapes import Shape, Tensor

Type = gguf.GGMLQuantizationType

UNKNOWN_ID, BOS_ID, EOS_ID = 0, 1, 2

# What llama-quantize writes instead where rows are no multiple of a type's block.
_FALLBACK = {Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1, Type.Q6_K: Type.Q8_0}
# Matrices that llama-quantize leaves alone; together with norms and everything that is not called "weight".
_NEVER_QUANTIZED = ("ffn_gate_inp.weight", "ssm_conv1d.weight")
# Elements in a block of the K types, which rows must be a multiple of.
_K_BLOCK = 256
# llama-quantize tells two families by their numbers: Llama 70B and its like, and Mixtral.
_LAYERS_OF_70B = 80
_EXPERTS_OF_MIXTRAL = 8


@dataclass(frozen=True, slots=True)
class Placed:
    """One tensor of a file: its name, ggml dimensions, type, and size in bytes."""

    name: str
    dimensions: tuple[int, ...]
    kind: Type
    size: int


@dataclass(frozen=True, slots=True)
class _Mix:
    """How llama-quantize mixes types for one file type."""

    base: Type
    file_type: gguf.LlamaFileType
    better: Type | None = None
    """The type of the layers and tensors that get more bits, if there are such."""
    experts: Type | None = None
    """The type of expert weights, if it is another one."""


MIXES = {
    "F16": _Mix(Type.F16, gguf.LlamaFileType.MOSTLY_F16),
    "Q8_0": _Mix(Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "Q6_K": _Mix(Type.Q6_K, gguf.LlamaFileType.MOSTLY_Q6_K, better=Type.Q6_K),
    "Q5_K_M": _Mix(Type.Q5_K, gguf.LlamaFileType.MOSTLY_Q5_K_M, better=Type.Q6_K),
    "Q4_K_M": _Mix(Type.Q4_K, gguf.LlamaFileType.MOSTLY_Q4_K_M, better=Type.Q6_K),
    "MXFP4": _Mix(Type.Q8_0, gguf.LlamaFileType.MOSTLY_MXFP4_MOE, experts=Type.MXFP4),
}


def write_sparse_gguf(path: Path, shape: Shape, quantization: str) -> list[Placed]:
    """Write `shape` to `path` in one of MIXES, and return its tensors as they lie in the file."""
    placed = place(shape, quantization)
    with closing(gguf.GGUFWriter(path, shape.architecture)) as writer:
        _add_metadata(writer, shape, MIXES[quantization].file_type)
        for tensor in placed:
            # numpy's order is the reverse of ggml's.
            shape_here = tuple(reversed(tensor.dimensions))
            writer.add_tensor_info(tensor.name, shape_here, np.dtype(np.float32), tensor.size, raw_dtype=tensor.kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    alignment = gguf.GGUF_DEFAULT_ALIGNMENT
    data = sum(_padded(tensor.size, alignment) for tensor in placed)
    with path.open("r+b") as file:
        file.truncate(_padded(path.stat().st_size, alignment) + data)
    return placed


def place(shape: Shape, quantization: str) -> list[Placed]:
    """The tensors of `shape` with the types that llama-quantize chooses."""
    chooser = _Chooser(shape, MIXES[quantization])
    result = []
    for name, dimensions in shape.tensors:
        kind = chooser.kind((name, dimensions))
        block_elements, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        result.append(Placed(name, dimensions, kind, prod(dimensions) // block_elements * block_bytes))
    return result


def _padded(length: int, alignment: int) -> int:
    return -(-length // alignment) * alignment


def _add_metadata(writer: gguf.GGUFWriter, shape: Shape, file_type: gguf.LlamaFileType) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in shape.metadata.items():
        name = f"{shape.architecture}.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        else:
            writer.add_float32(name, value)
    _add_tokenizer(writer, shape.vocab_size)


def _add_tokenizer(writer: gguf.GGUFWriter, vocab_size: int) -> None:
    """A vocabulary of the right length, for SentencePiece: it loads fastest, and needs neither scores nor types."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256))]
    tokens += [f"t{index}" for index in range(len(tokens), vocab_size)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_unk_token_id(UNKNOWN_ID)
    writer.add_bos_token_id(BOS_ID)
    writer.add_eos_token_id(EOS_ID)


class _Chooser:
    """The types that llama-quantize gives tensors (`llama_tensor_get_type_impl`), which it asks for in file order."""

    def __init__(self, shape: Shape, mix: _Mix) -> None:
        self._mix = mix
        self._tied = all(name != "output.weight" for name, _ in shape.tensors)
        self._layers = shape.layers
        heads, kv_heads = shape.metadata["attention.head_count"], shape.metadata["attention.head_count_kv"]
        has_70b = shape.architecture in {"llama", "qwen2"} and heads != kv_heads
        self._is_70b = has_70b and self._layers == _LAYERS_OF_70B
        self._eight_experts = shape.metadata.get("expert_count") == _EXPERTS_OF_MIXTRAL
        self._values = sum(_is_value(name) for name, _ in shape.tensors)
        self._values_seen = 0

    def kind(self, tensor: Tensor) -> Type:
        name, dimensions = tensor
        if not _is_quantized(name, dimensions):
            return Type.F32
        kind = self._wanted(name, dimensions)
        if dimensions[0] % gguf.GGML_QUANT_SIZES[kind][0]:
            kind = _FALLBACK[kind]
        return kind

    def _wanted(self, name: str, dimensions: tuple[int, ...]) -> Type:
        if self._mix.experts and "_exps" in name:
            return self._mix.experts
        if self._mix.better is None:
            return self._mix.base
        if name == "output.weight" or (self._tied and name == "token_embd.weight"):
            # Not the usual fallback: with rows of another length this one goes to eight bits at once.
            return Type.Q8_0 if dimensions[0] % _K_BLOCK else Type.Q6_K
        return self._in_k_mix(name, self._mix.better)

    def _in_k_mix(self, name: str, better: Type) -> Type:
        base = self._mix.base
        if _is_value(name):
            more = _gets_more_bits(self._values_seen, self._values)
            self._values_seen += 1
            if self._eight_experts:
                return Type.Q8_0
            kind = better if more else base
            return Type.Q5_K if self._is_70b and kind == Type.Q4_K else kind
        if "ffn_down" in name:
            return better if _gets_more_bits(int(name.split(".")[1]), self._layers) else base
        if self._eight_experts and "attn_k.weight" in name:
            return Type.Q8_0
        if self._eight_experts and "attn_output.weight" in name and base == Type.Q4_K:
            return Type.Q5_K
        return base


def _is_quantized(name: str, dimensions: tuple[int, ...]) -> bool:
    if len(dimensions) == 1 or not name.endswith("weight"):
        return False
    return "_norm.weight" not in name and not name.endswith(_NEVER_QUANTIZED)


def _is_value(name: str) -> bool:
    return any(part in name for part in ("attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight"))


def _gets_more_bits(index: int, count: int) -> bool:
    """The first and the last eighth of the layers, and every third in between."""
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8 + 1) % 3 == 0
