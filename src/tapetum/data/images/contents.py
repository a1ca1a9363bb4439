"""Image files that are no files of this machine: objects on another one, members of archives, rows of Parquet files.

A `Contents` reads the bytes of image i. It can be pickled, opens nothing before it reads, and keeps no file open, so
loader processes can use it at once, each in its own time.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from tapetum.data.images.decoding import ImageFile
from tapetum.data.images.parquet_rows import read_row
from tapetum.system.addresses import Address, Place
from tapetum.system.remote import Unreachable, look_at, open_ranges, read_bytes, read_range

Indices = npt.NDArray[np.int64]

REMOTE_AT_ONCE = 16
"""Requests that wait for another machine at the same time."""
STORED, IN_ZIP, IN_ROW = 0, 1, 2
"""How an image lies in its file: as it is; in a zip file, behind a header of its own and perhaps deflated; in a row of
a Parquet file, whose number in its row group is the length, and that of the group the start."""
MEMBERS = np.dtype([("file", "i4"), ("start", "i8"), ("length", "i8"), ("size", "i8"), ("kind", "u1"), ("check", "u4")])
"""Where images lie: number of the archive, first byte and length there, size once unpacked, kind, CRC-32 of a zip."""
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_DEFLATED = 8
_LARGEST = 2**30  # bytes: nothing larger is unpacked


class Contents(ABC):
    """The bytes of N image files.

    Attributes:
        at_once: how many to ask for at a time; more than one if each waits for another machine.
    """

    at_once: int = 1

    @property
    @abstractmethod
    def stats(self) -> npt.NDArray[np.int64]:
        """(N, 2): size in bytes of each, and a number that changes with it."""

    @abstractmethod
    def read(self, index: int, most: int | None = None) -> bytes:
        """Read one, or only its first `most` bytes or a few more.

        Raises:
            ValueError: it is damaged.
            FileNotFoundError: it has gone.
            Unreachable: its archive or its machine cannot be read.
        """

    @abstractmethod
    def only(self, kept: Indices) -> Contents:
        """Return those at the indices `kept`, in that order."""


class HeldFile:
    """One image file of a `Contents`, for `tapetum.data.images.decoding`; its text is the name that errors give it."""

    def __init__(self, contents: Contents, index: int, name: str) -> None:
        self._contents, self._index, self._name = contents, index, name
        self._ahead: bytes | Exception | None = None

    def __str__(self) -> str:
        return self._name

    def read(self, most: int | None = None) -> bytes:
        """Read its bytes, or the first `most`; errors are those of `Contents.read`."""
        if isinstance(self._ahead, Exception):
            raise self._ahead
        return self._contents.read(self._index, most) if self._ahead is None else self._ahead

    def read_ahead(self) -> None:
        """Read its bytes now, so that `read` returns them, or raises what went wrong, at once."""
        try:
            self._ahead = self._contents.read(self._index)
        except Exception as error:
            self._ahead = error


def read_ahead(file: ImageFile) -> ImageFile:
    """Read the bytes of a `HeldFile` now; a path stays as it is."""
    if isinstance(file, HeldFile):
        file.read_ahead()
    return file


@dataclass(frozen=True)
class Blob:
    """A file, here or elsewhere, of which parts are read."""

    place: Place
    size: int
    """In bytes."""
    stamp: int
    """Changes when the file does."""

    @classmethod
    def at(cls, place: Place) -> Blob:
        """Look at a file.

        Raises:
            ValueError: there is none, or it is no regular file.
            Unreachable: no answer from another machine.
        """
        if isinstance(place, Address):
            return cls(place, *look_at(place)[1:])
        try:
            seen = place.stat()
        except OSError as error:
            raise ValueError(f"{place} cannot be opened ({error.strerror}): check the path") from error
        if not stat.S_ISREG(seen.st_mode):
            raise ValueError(f"{place} is no file: give the path of a file")
        return cls(place, seen.st_size, seen.st_mtime_ns)

    def open(self) -> BinaryIO:
        """Open it to read and seek in."""
        return open_ranges(self.place, self.size) if isinstance(self.place, Address) else self.place.open("rb")

    def read(self, start: int, length: int) -> bytes:
        """Read a part.

        Raises:
            Unreachable: it has gone or changed, or its machine does not answer.
        """
        if isinstance(self.place, Address):
            try:
                return read_range(self.place, start, length)
            except FileNotFoundError:
                raise Unreachable(f"{self.place} has gone: put it back, or give the images anew") from None
        return _read_part(self.place, start, length, (self.size, self.stamp))


def _read_part(path: Path, start: int, length: int, known: tuple[int, int]) -> bytes:
    # Opened for each part: that takes a tenth of the time to decode a small image, and nothing is left open.
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise Unreachable(
            f"{path} cannot be opened ({error.strerror}): put it back, or give the images anew"
        ) from error
    try:
        seen = os.fstat(descriptor)
        content = os.pread(descriptor, length, start)
    finally:
        os.close(descriptor)
    if (seen.st_size, seen.st_mtime_ns) != known or len(content) != length:
        raise Unreachable(f"{path} has changed since its images were listed: start the command again")
    return content


class RemoteFiles(Contents):
    """Image files below an address.

    Args:
        root: the folder.
        names: their names below it.
        stats: (N, 2) size in bytes and stamp of each.
    """

    at_once = REMOTE_AT_ONCE

    def __init__(self, root: Address, names: Sequence[str], stats: npt.NDArray[np.int64]) -> None:
        self._root, self._names, self._stats = root, tuple(names), stats

    @property
    def stats(self) -> npt.NDArray[np.int64]:
        return self._stats

    def read(self, index: int, most: int | None = None) -> bytes:
        size = int(self._stats[index, 0])
        place = self._root / self._names[index]
        return read_bytes(place, size) if most is None or most >= size else read_range(place, 0, most)

    def only(self, kept: Indices) -> RemoteFiles:
        return RemoteFiles(self._root, [self._names[int(i)] for i in kept], self._stats[kept])


class Members(Contents):
    """Image files inside tar, zip and Parquet files.

    Args:
        blobs: the archives.
        entries: (N,) where each lies, of dtype `MEMBERS`.
    """

    def __init__(self, blobs: Sequence[Blob], entries: npt.NDArray[np.void]) -> None:
        self._blobs, self._entries = tuple(blobs), entries
        if any(isinstance(blob.place, Address) for blob in self._blobs):
            self.at_once = REMOTE_AT_ONCE

    @property
    def stats(self) -> npt.NDArray[np.int64]:
        stamps = np.array([blob.stamp & (2**63 - 1) for blob in self._blobs], dtype=np.uint64)[self._entries["file"]]
        mixed = stamps * np.uint64(0x9E3779B97F4A7C15) + self._entries["start"].astype(np.uint64)
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + self._entries["length"].astype(np.uint64)
        return np.stack([self._entries["size"], (mixed >> np.uint64(1)).astype(np.int64)], axis=1)

    def read(self, index: int, most: int | None = None) -> bytes:
        file, start, length, size, kind, check = self._entries[index].item()
        blob = self._blobs[file]
        if kind == IN_ROW:
            return read_row(blob, start, length)
        if kind == STORED:
            return blob.read(start, length if most is None else min(most, length))
        return unpacked(blob.read(start, length), size, check)

    def only(self, kept: Indices) -> Members:
        return Members(self._blobs, self._entries[kept])


def unpacked(block: bytes, size: int, check: int) -> bytes:
    """Return the content of a member of a zip file.

    Args:
        block: its local header and what follows it.
        size: its size once unpacked, which it may not exceed.
        check: its CRC-32.

    Raises:
        ValueError: it is damaged, encrypted, or compressed in another way than by deflate.
    """
    if len(block) < _LOCAL_HEADER.size or block[:4] != b"PK\3\4":
        raise ValueError("it is damaged in its zip file")
    _, _, flags, method, _, _, _, _, _, name_length, extra_length = _LOCAL_HEADER.unpack_from(block)
    if flags & 1 or method not in (0, _DEFLATED) or size > _LARGEST:
        what = "encrypted" if flags & 1 else "too large" if size > _LARGEST else f"compressed by method {method}"
        raise ValueError(f"it is {what} in its zip file")
    begin = _LOCAL_HEADER.size + name_length + extra_length
    content = memoryview(block)[begin:]
    try:
        whole = bytes(content[:size]) if method == 0 else zlib.decompressobj(-15).decompress(content, size + 1)
    except zlib.error as error:
        raise ValueError(f"it is damaged in its zip file: {error}") from error
    if len(whole) != size or zlib.crc32(whole) != check:
        raise ValueError("it is damaged in its zip file: its check sum is another")
    return whole
