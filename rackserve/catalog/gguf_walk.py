"""Walk the header of a GGUF file: its keys, and the sizes of its tensors.

The header is walked here rather than with gguf.GGUFReader, which supplies only the format's tables.
The reader makes an object of every array element (a Gemma vocabulary cost it 23 seconds and 1.4 GB)
and believes every length that a file states, so that one damaged count fills memory. Here each
length is held against the size of the file first, arrays are stepped over, and whatever is wrong
reaches the caller as an InputError that names file and key.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import BinaryIO, NoReturn, TypeAlias

import gguf

from rackserve.domain.errors import InputError, Problem

# Limits above any published model, which keep the time that a damaged header takes short. The
# longest real arrays are merge lists of about 500 000 entries.
MAX_ENTRIES = 65_536
MAX_ARRAY_ELEMENTS = 4_000_000
MAX_DIMENSIONS = 4
MAX_LAYERS = 4096
MAX_LENGTH = 2**31 - 1
# A text is kept up to here: names are shorter, and the facts need no chat template or licence.
KEPT_TEXT_BYTES = 256

_Value: TypeAlias = "str | int | float | List"
_Type = gguf.GGUFValueType
# struct formats; GGUF files are little-endian but for rare ones that llama.cpp on x86 and ARM cannot load.
_UNSIGNED: dict[int, str] = {_Type.UINT8: "<B", _Type.UINT16: "<H", _Type.UINT32: "<I", _Type.UINT64: "<Q"}
_SIGNED: dict[int, str] = {_Type.INT8: "<b", _Type.INT16: "<h", _Type.INT32: "<i", _Type.INT64: "<q"}
_INTEGERS = _UNSIGNED | _SIGNED
# Numbers, or yes and no, of which there may be one for each layer.
_WHOLE = _INTEGERS | {_Type.BOOL: "<?"}
_SCALARS = _INTEGERS | {_Type.BOOL: "<?", _Type.FLOAT32: "<f", _Type.FLOAT64: "<d"}
# Of each tensor type, the elements in one block and the bytes that block takes.
_TENSOR_BLOCKS: dict[int, tuple[int, int]] = {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}


def read_header(path: Path) -> Header:
    """The header of the single-file model at `path`; InputError names what is malformed."""
    try:
        with path.open("rb") as file:
            return _HeaderWalk(path, file).read()
    except OSError as error:
        raise InputError([Problem(f"cannot be read: {error.strerror or error}", where=str(path))]) from error


@dataclass(frozen=True, slots=True)
class List:
    """An array: its length, and its numbers if they are whole and few enough to be one for each layer."""

    length: int
    numbers: tuple[int, ...] = ()


@dataclass(slots=True)
class Header:
    """What was read, and the typed access to it. A key without a `default` must be there."""

    path: Path
    values: dict[str, _Value] = field(default_factory=dict)
    # Bytes of each tensor.
    tensors: dict[str, int] = field(default_factory=dict)

    def integer(self, key: str, *, least: int = 1, most: int = MAX_LENGTH, default: int | None = None) -> int:
        """A whole number within these bounds."""
        if default is not None and key not in self.values:
            return default
        return self._checked(key, self._value(key), least, most)

    def for_layers(self, key: str, layers: int, most: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """One number for each layer; a file states them one by one, or one that holds for all."""
        if default and key not in self.values:
            return default
        value = self._value(key)
        if not isinstance(value, List):
            return (self._checked(key, value, 0, most),) * layers
        if len(value.numbers) != layers:
            self.refuse(key, f"has {len(value.numbers)} whole numbers for {layers} layers")
        return tuple(self._checked(key, number, 0, most) for number in value.numbers)

    def list_length(self, key: str) -> int:
        """The length of a list that has something in it."""
        value = self._value(key)
        if not isinstance(value, List) or value.length == 0:
            self.refuse(key, "must be a list with something in it")
        return value.length

    def refuse(self, key: str, message: str, hint: str = "") -> NoReturn:
        """Raise the InputError that names file and key."""
        raise InputError([Problem(message, where=str(self.path), key=key, hint=hint)])

    def _value(self, key: str) -> _Value:
        if key not in self.values:
            self.refuse(key, "is missing")
        return self.values[key]

    def _checked(self, key: str, value: _Value, least: int, most: int) -> int:
        # bool is an int to Python, and is none here.
        if not isinstance(value, int) or isinstance(value, bool):
            self.refuse(key, "must be a whole number")
        if not least <= value <= most:
            self.refuse(key, f"is {value}; the least is {least} and the most {most}")
        return value


class _HeaderWalk:
    """One pass over a file's header, from the magic number to the last tensor's description."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._offset = 0
        self._header = Header(path)
        # By name: the offset from the start of the data, and the size, both in bytes.
        self._tensors: dict[str, tuple[int, int]] = {}
        # The key or tensor that is being read, for messages.
        self._key = ""

    def read(self) -> Header:
        if self._take(4, "the magic number") != b"GGUF":
            self._refuse("is not a GGUF file: it does not start with 'GGUF'")
        version = self._number("<I", "the version")
        if version not in (2, 3):
            self._refuse(f"is GGUF version {version}; versions 2 and 3, little-endian, can be read")
        tensor_count = self._count("tensors", MAX_ENTRIES)
        key_count = self._count("keys", MAX_ENTRIES)
        for _ in range(key_count):
            self._pair()
        for _ in range(tensor_count):
            self._tensor()
        self._place_tensors()
        return self._header

    def _refuse(self, message: str, hint: str = "") -> NoReturn:
        self._header.refuse(self._key, message, hint)

    def _reserve(self, length: int, what: str) -> None:
        """Move on by `length` bytes, which must be there: nothing is read or allocated before that is known."""
        if length > self._size - self._offset:
            self._refuse(f"ends within {what}, which takes {length} bytes at offset {self._offset}", "truncated?")
        self._offset += length

    def _take(self, length: int, what: str) -> bytes:
        self._reserve(length, what)
        data = self._file.read(length)
        if len(data) != length:
            self._refuse(f"ended within {what} while it was read")
        return data

    def _skip(self, length: int, what: str) -> None:
        self._reserve(length, what)
        self._file.seek(self._offset)

    def _number(self, layout: str, what: str) -> int:
        number: int = struct.unpack(layout, self._take(struct.calcsize(layout), what))[0]
        return number

    def _count(self, what: str, most: int) -> int:
        count = self._number("<Q", f"the number of {what}")
        if count > most:
            self._refuse(f"states {count} {what}; the most that is believed is {most}")
        return count

    def _name(self, what: str) -> str:
        name = self._text(what)
        if not name.isprintable():
            self._refuse(f"has {what} with unprintable characters: {name!r}")
        return name

    def _text(self, what: str) -> str:
        length = self._number("<Q", f"the length of {what}")
        kept = self._take(min(length, KEPT_TEXT_BYTES), what)
        self._skip(length - len(kept), what)
        # Damaged bytes become a character that is printable and in no key.
        return kept.decode(errors="replace")

    def _pair(self) -> None:
        self._key = self._name("a key's name")
        if self._key in self._header.values:
            self._refuse("is there twice")
        kind = self._number("<I", "the type of a value")
        self._header.values[self._key] = self._array() if kind == _Type.ARRAY else self._value(kind)
        self._key = ""

    def _value(self, kind: int) -> str | int | float:
        """One value. An array within an array is refused as an unknown type: no model has one."""
        if kind == _Type.STRING:
            return self._text("a text")
        if kind not in _SCALARS:
            self._refuse(f"has a value of unknown type {kind}")
        return self._number(_SCALARS[kind], "a value")

    def _array(self) -> List:
        kind = self._number("<I", "the type of an array's elements")
        count = self._count("array elements", MAX_ARRAY_ELEMENTS)
        if kind in _WHOLE and count <= MAX_LAYERS:
            return List(count, tuple(int(self._number(_WHOLE[kind], "a value")) for _ in range(count)))
        if kind in _SCALARS:
            self._skip(count * struct.calcsize(_SCALARS[kind]), "an array")
            return List(count)
        for _ in range(count):
            self._value(kind)
        return List(count)

    def _tensor(self) -> None:
        self._key = self._name("a tensor's name")
        if self._key in self._tensors:
            self._refuse("is there twice")
        dimensions = self._number("<I", "a tensor's dimension count")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            self._refuse(f"has {dimensions} dimensions; a tensor has 1 to {MAX_DIMENSIONS}")
        shape = [self._number("<Q", "a tensor's shape") for _ in range(dimensions)]
        kind = self._number("<I", "a tensor's type")
        if kind not in _TENSOR_BLOCKS:
            self._refuse(f"has tensor type {kind}, which this version of the gguf package does not know")
        block_elements, block_bytes = _TENSOR_BLOCKS[kind]
        # The first dimension is the length of a row.
        if 0 in shape or shape[0] % block_elements:
            self._refuse(f"has shape {shape}, which its type, in blocks of {block_elements}, cannot have")
        size = prod(shape) // block_elements * block_bytes
        self._tensors[self._key] = (self._number("<Q", "a tensor's offset"), size)

    def _place_tensors(self) -> None:
        """Note the weights, each of which must lie within the file."""
        alignment = self._header.integer("general.alignment", default=gguf.GGUF_DEFAULT_ALIGNMENT)
        start = -(-self._offset // alignment) * alignment
        for name, (offset, size) in self._tensors.items():
            self._key = name
            if start + offset + size > self._size:
                self._refuse(f"needs {size} bytes at offset {start + offset} of {self._size}", "truncated?")
            self._header.tensors[name] = size
