"""Which number format the weights are served in, and whether the GPU and the runtime can. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rackserve.domain.errors import suggestion
from rackserve.domain.gpu import Gpu
from rackserve.domain.shape import Shape
from rackserve.domain.weight_format import FORMATS

UNQUANTIZED = ""
# What operators and checkpoints call each format; the first name is the one that is shown.
LABELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        UNQUANTIZED: ("none", "bf16", "fp16", "bfloat16", "float16", "half"),
        "fp8": ("fp8", "fp8-dynamic", "fp8-w8a8", "fp8-w8a8-dynamic", "fp8-online", "fp8_e4m3"),
        "fp8-block": ("fp8-block", "fp8-block128"),
        "int8": ("int8", "int8-w8a8", "w8a8"),
        "awq": ("awq", "awq-int4", "awq_marlin"),
        "int4-g128": ("gptq", "gptq-int4", "w4a16", "int4", "gptq_marlin", "gptq-w4a16-g128"),
        "int4-g32": ("int4-g32", "w4a16-g32"),
        "nvfp4": ("nvfp4",),
        "mxfp4": ("mxfp4",),
    }
)
# Names of methods rather than formats: vLLM reads the format from the checkpoint.
AS_STORED = ("auto", "compressed-tensors", "modelopt", "modelopt_fp4", "fbgemm_fp8", "quark")
_SHOWN = (*(names[0] for names in LABELS.values()), *AS_STORED)
_NAMES = {name: key for key, names in LABELS.items() for name in (key, *names) if name}
# Formats by what the silicon multiplies, best quality first at each size; the last ones are unpacked to 16 bits.
_PREFERENCE: tuple[tuple[str, str], ...] = (
    ("nvfp4", "nvfp4"),
    ("mxfp4", "mxfp4"),
    ("fp8", "fp8"),
    ("fp8", "fp8-block"),
    ("int8", "int8"),
    ("fp16", "awq"),
    ("fp16", "int4-g128"),
    ("fp16", "int4-g32"),
)
# What the silicon has to multiply for each kind of format. MXFP8 is FP8 with other scales.
_NATIVE = {"fp8": "fp8", "mxfp8": "fp8", "nvfp4": "nvfp4", "mxfp4": "mxfp4"}
# vLLM's Marlin kernels unpack what the silicon cannot multiply from this compute capability on.
_MARLIN_FP8 = (8, 0)
_MARLIN_INT4 = (7, 5)


@dataclass(frozen=True, slots=True)
class Quantization:
    """The format of the linears (a key of FORMATS, or empty), what it is called, and why.

    converted: made from a 16-bit checkpoint while it loads, towers included, which published checkpoints leave alone.
    """

    weight_format: str
    label: str
    reason: str
    warnings: tuple[str, ...] = ()
    converted: bool = False


def known_labels() -> tuple[str, ...]:
    """Every name that is understood."""
    return (*_NAMES, *AS_STORED)


def label(weight_format: str) -> str:
    """What a format is called."""
    return LABELS.get(weight_format, (weight_format,))[0]


def weight_format(name: str) -> str | None:
    """The format that a name means, None for a name that is not known."""
    return _NAMES.get(name.lower())


def as_stored(shape: Shape, gpu: Gpu) -> Quantization | str:
    """Serve the checkpoint as it is, or the sentence that says why this GPU cannot."""
    stored = sorted({matrix.stored for layer in shape.layers for matrix in layer.matrices} - {"", "fp32"})
    unable = [found for entry in stored if (found := cannot(entry, gpu))]
    if unable:
        return unable[0]
    if not stored:
        return Quantization("", "none", "quantization none: the checkpoint is not quantized")
    reason = f"quantization {shape.quantization}: as the checkpoint is"
    notes = tuple(note for entry in stored if (note := _emulated(entry, gpu)))
    return Quantization("", shape.quantization, reason, notes)


def asked_for(name: str, shape: Shape, gpu: Gpu, offered: tuple[str, ...], *, converts: bool) -> Quantization | str:
    """What the operator asked for, or the sentence that says why it cannot be.

    Without `offered` nobody knows what is published: the answer is for a checkpoint that somebody would have to make.
    """
    if name.lower() in AS_STORED:
        return as_stored(shape, gpu)
    chosen = weight_format(name)
    if chosen is None:
        return f"quantization {name} is not known; {suggestion(name, _SHOWN)}"
    if shape.quantization:
        return _as_asked(name, chosen, shape, gpu)
    converted = chosen == "fp8" and chosen not in offered and converts
    unable = cannot(chosen, gpu)
    if not unable and chosen and offered and chosen not in offered and not converted:
        listed = ", ".join(label(entry) for entry in offered)
        unable = f"quantization {label(chosen)} is not listed for this model: it has {listed}"
    if unable:
        return unable
    if not chosen:
        return Quantization("", "none", "quantization none: asked for")
    how = "converted while loading" if converted else f"from a checkpoint in {label(chosen)}"
    notes = [_emulated(chosen, gpu)]
    if not offered and not converted:
        notes.append(f"this checkpoint is not in {label(chosen)}: the numbers are those of one that is")
    reason = f"quantization {label(chosen)}: asked for, {how}"
    return Quantization(chosen, label(chosen), reason, tuple(note for note in notes if note), converted)


def _as_asked(name: str, chosen: str, shape: Shape, gpu: Gpu) -> Quantization | str:
    """A quantized checkpoint, if it is what was asked for."""
    if label(chosen) in shape.quantization or chosen in shape.quantization:
        return as_stored(shape, gpu)
    return f"the checkpoint is {shape.quantization}, it cannot be served as {name}: leave quantization out"


def candidates(gpu: Gpu, offered: tuple[str, ...], *, converts: bool) -> list[Quantization]:
    """What could be served where the choice is ours, the preferred one first: the format that the silicon multiplies.

    A format has to be published (`offered`), but for FP8 where the runtime `converts` a 16-bit checkpoint to it.
    """
    found = []
    for native, candidate in _PREFERENCE:
        if native not in gpu.formats or cannot(candidate, gpu):
            continue
        if candidate in offered or (candidate == "fp8" and converts):
            multiplied = native in {candidate, "fp8"}
            converted = candidate not in offered
            why = f"{gpu.name} multiplies {native}" if multiplied else "the smallest it can unpack"
            reason = f"quantization {label(candidate)}: {why}{', converted while loading' if converted else ''}"
            found.append(Quantization(candidate, label(candidate), reason, converted=converted))
    return [
        *found,
        Quantization("", "none", f"quantization none: nothing smaller is published that {gpu.name} multiplies"),
    ]


def cannot(weight_format: str, gpu: Gpu) -> str:
    """Why this GPU cannot serve a format, empty if it can."""
    if weight_format in {"", "fp32"} or gpu.vendor in {"none", "apple"}:
        return ""
    name, capability, native = label(weight_format), gpu.compute_capability, _native(weight_format)
    if native and native not in gpu.formats:
        if native == "mxfp4" and gpu.vendor == "amd" and "fp8" in gpu.formats:
            # gpt-oss on MI300X: vLLM's Triton kernels unpack it.
            return ""
        if capability is not None and capability >= _MARLIN_FP8:
            return ""
        return f"{name} needs a GPU with {native}, or compute capability 8.0 to unpack it; {gpu.name} is {gpu.target}"
    if not native and capability is not None and capability < _MARLIN_INT4 and weight_format != "int8":
        return f"{name} needs compute capability 7.5; {gpu.name} is {gpu.target}"
    return ""


def _native(weight_format: str) -> str:
    """The format that the silicon has to multiply, empty for those that are always unpacked or in all of it."""
    return _NATIVE.get(FORMATS[weight_format].kind, "") if weight_format else ""


def _emulated(weight_format: str, gpu: Gpu) -> str:
    native = _native(weight_format)
    if native and native not in gpu.formats:
        return (
            f"{gpu.name} does not multiply {native}: weights are unpacked to 16 bits, memory is saved and speed is not"
        )
    return ""
