"""Reads TensorFlow's checkpoints, also those in the folder `variables` of a SavedModel, without TensorFlow.

A checkpoint is a pair of files: `NAME.index`, a sorted table (the format of LevelDB) from names to descriptions, each a
protocol buffer that says type, shape and place; and `NAME.data-00000-of-00001`, the values one after the other. Only
bytes are read. Places and sizes are checked against the file; checksums are not.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tapetum.system.strangers import short_reason

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_LONGEST_NAME = 1000
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 19: "<f2"}
"""Number in TensorFlow -> type in NumPy; values of other types, such as texts, are no weights."""


def read_bundle(index: Path) -> dict[str, np.ndarray]:
    """Read every array of numbers of a checkpoint.

    Args:
        index: the file that ends in `.index`.

    Returns:
        TensorFlow's names -> arrays.

    Raises:
        ValueError: a file is missing, cut short or compressed, or the values lie in several files.
    """
    data_path = index.with_name(f"{index.stem}.data-00000-of-00001")
    if not data_path.is_file():
        raise ValueError(f"{data_path} is missing: keep it beside {index.name}, or save the model in one piece.")
    data = data_path.read_bytes()
    try:
        entries = {name.decode(): _fields(value) for name, value in _table(index.read_bytes()) if name}
        if sum(_number(fields, 5) for fields in entries.values()) > len(data):
            raise ValueError("its values lie over each other")
        values = {name: _values(fields, data) for name, fields in entries.items()}
        return {name: _array(fields, values[name]) for name, fields in entries.items() if _number(fields, 1) in _TYPES}
    except Exception as error:  # damaged bytes raise nearly any type
        raise ValueError(
            f"{index} or its data is cut short or damaged ({short_reason(error)}): get both again."
        ) from error


def _values(fields: dict[int, list[int | bytes]], data: bytes) -> bytes:
    """The bytes that an entry says to be its own."""
    start, size = _number(fields, 4), _number(fields, 5)
    if _number(fields, 3) or start + size > len(data):
        raise ValueError(f"{size} bytes from {start} on are not in the first file of data")
    return data[start : start + size]


def _array(fields: dict[int, list[int | bytes]], values: bytes) -> np.ndarray:
    """Values in the shape that an entry describes."""
    shape = []
    for description in fields.get(2, []):
        shape = [_number(_fields(_bytes(size)), 1) for size in _fields(_bytes(description)).get(2, [])]
    dtype = np.dtype(_TYPES[_number(fields, 1)])
    if math.prod(shape) * dtype.itemsize != len(values):
        raise ValueError(f"{len(values)} bytes are no array of shape {tuple(shape)}")
    return np.frombuffer(values, dtype).reshape(shape).copy()


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a table: its index block names the blocks that hold them."""
    if len(data) < _FOOTER or struct.unpack("<Q", data[-8:])[0] != _MAGIC:
        raise ValueError("it has no table's footer")
    footer = data[-_FOOTER:]
    _, position = _block_place(footer, 0)
    place, _ = _block_place(footer, position)
    left = len(data)
    for _, value in _block(data, place):
        start, size = _block_place(value, 0)[0]
        left -= size
        if left < 0:
            raise ValueError("its blocks lie over each other")
        yield from _block(data, (start, size))


def _block_place(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    start, position = _varint(data, position)
    size, position = _varint(data, position)
    return (start, size), position


def _block(data: bytes, place: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
    """Entries of a block: each key shares its first bytes with the one before."""
    start, size = place
    if start + size + 5 > len(data):
        raise ValueError("a block lies behind its end")
    if data[start + size] != 0:
        raise ValueError("it is compressed")
    block = data[start : start + size]
    (restarts,) = struct.unpack("<I", block[-4:])
    end, position, key = size - 4 * (restarts + 1), 0, b""
    while position < end:
        shared, position = _varint(block, position)
        own, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + own]
        if len(key) > _LONGEST_NAME:
            raise ValueError("a name is too long")
        position += own + length
        yield key, block[position - length : position]


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number in groups of 7 bits, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a number is too long")


def _fields(message: bytes) -> dict[int, list[int | bytes]]:
    """The fields of a protocol buffer by their numbers."""
    fields: dict[int, list[int | bytes]] = {}
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        value: int | bytes
        if tag & 7 == 0:
            value, position = _varint(message, position)
        else:
            size, position = _varint(message, position) if tag & 7 == 2 else ({1: 8, 5: 4}[tag & 7], position)
            value = message[position : position + size]
            position += size
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _number(fields: dict[int, list[int | bytes]], field: int) -> int:
    """The last value of a field; 0 if it is absent, as protocol buffers have it."""
    value = fields.get(field, [0])[-1]
    if not isinstance(value, int):
        raise ValueError(f"field {field} is no number")
    return value


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a description is a number")
    return value
