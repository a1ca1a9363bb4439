"""Stores, which keep images until a batch needs them.

Three stores share one protocol. `ArrayStore` holds uint8 images of equal size, in memory or memory-mapped, and reads a
batch in one copy. `FileStore` decodes image files whenever they are read. If the decoded images fit,
`tapetum.data.images.cache` turns it into an `ArrayStore` or, where sizes differ, a `RaggedStore`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tapetum.data.images.contents import Contents, HeldFile, read_ahead
from tapetum.data.images.decoding import ImageFile, UnreadableImage, decode, header_sizes, shrunk_sizes
from tapetum.system.addresses import Place
from tapetum.system.threads import in_turn

Indices = npt.NDArray[np.int64]


class Store(ABC):
    """Images numbered 0..N-1.

    Attributes:
        names: N distinct names: paths relative to the folder with `/` between parts, or row numbers of an array.
            Subsets of labels are drawn by name, so a name must not depend on the machine.
    """

    names: tuple[str, ...]
    channels: int = 3
    """1 or 3."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the images and their order; equal on another machine that has the same images."""

    @property
    @abstractmethod
    def sizes(self) -> npt.NDArray[np.int64]:
        """(N, 2) heights and widths in pixels."""

    @cached_property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) in pixels if all images have the same size, else None."""
        if len(self) == 0 or (self.sizes != self.sizes[0]).any():
            return None
        return int(self.sizes[0, 0]), int(self.sizes[0, 1])

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def read(self, indices: Indices) -> Tensor | list[Tensor]:
        """Read the images at some indices as uint8: one tensor (B, C, H, W), or a list of B tensors (C, h, w)."""

    def each(self, indices: Indices) -> Iterator[Tensor | ValueError]:
        """Read images one by one, in order: (C, h, w), or why an image cannot be read."""
        for index in indices:
            try:
                yield self.read(np.array([index]))[0]
            except ValueError as error:
                yield error


class ArrayStore(Store):
    """Images of equal size in one array.

    Args:
        images: uint8 array (N, C, H, W), C 1 or 3; a `np.memmap` stays on disk until its rows are read.
        names: N distinct names; None numbers the rows: "0", "1", ...
        fingerprint: that of the images' source; None hashes shape and content.

    Raises:
        ValueError: wrong type, shape, or number of names.

    Example:
        >>> import numpy as np
        >>> from tapetum.data.images.stores import ArrayStore
        >>> store = ArrayStore(np.zeros((10, 3, 32, 32), np.uint8))
        >>> store.read(np.array([3, 1])).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        names: Sequence[str] | None = None,
        fingerprint: str | None = None,
    ) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"images are {images.dtype} of shape {images.shape}: "
                "give uint8 of shape (N, 1, H, W) or (N, 3, H, W), values 0 to 255"
            )
        if names is not None and len(names) != len(images):
            raise ValueError(f"{len(names)} names for {len(images)} images: give one name per image")
        self._images = images
        self.names = tuple(names) if names is not None else tuple(str(i) for i in range(len(images)))
        self.channels = int(images.shape[1])
        self._fingerprint = fingerprint
        self._path: Path | None = None

    @classmethod
    def open(cls, path: Path, names: Sequence[str] | None = None, fingerprint: str | None = None) -> ArrayStore:
        """Memory-map a .npy file. Loader workers started by spawn map it again instead of copying it."""
        store = cls(np.load(path, mmap_mode="r", allow_pickle=False), names, fingerprint)
        store._path = Path(path)
        return store

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self._path is not None:
            state["_images"] = None  # pickling a memmap would copy the file through the pipe
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._path is not None:
            self._images = np.load(self._path, mmap_mode="r", allow_pickle=False)

    @property
    def fingerprint(self) -> str:
        """The constructor's fingerprint, or a hash of shape and content, computed once at about a gigabyte a second."""
        if self._fingerprint is None:
            digest = hashlib.blake2b(repr(self._images.shape).encode(), digest_size=16)
            for start in range(0, len(self._images), 4096):
                digest.update(self._images[start : start + 4096].tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        size = np.array(self._images.shape[2:], dtype=np.int64)
        return np.broadcast_to(size, (len(self), 2))

    def read(self, indices: Indices) -> Tensor:
        """Read images as a uint8 tensor (B, C, H, W), which is a copy.

        Raises:
            IndexError: an index is outside 0..N-1.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"image indices must lie in 0..{len(self) - 1}")
        return torch.from_numpy(np.take(self._images, indices, axis=0))


class RaggedStore(Store):
    """RGB images of different sizes, one after the other in a memory-mapped .npy file of bytes.

    Args:
        path: the file, a one-dimensional uint8 array.
        sizes: (N, 2) heights and widths.
        names: N distinct names.
        fingerprint: that of the images' source.
    """

    def __init__(self, path: Path, sizes: npt.NDArray[np.int64], names: Sequence[str], fingerprint: str) -> None:
        self._path, self.names, self._sizes, self._fingerprint = Path(path), tuple(names), sizes, fingerprint
        self._ends = np.cumsum(3 * sizes.prod(axis=1))
        self._pixels = np.load(self._path, mmap_mode="r", allow_pickle=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pixels": None}  # pickling a memmap would copy the file through the pipe

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pixels = np.load(self._path, mmap_mode="r", allow_pickle=False)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        return self._sizes

    def read(self, indices: Indices) -> list[Tensor]:
        """Read B uint8 tensors (3, h, w), which are copies."""
        return [torch.from_numpy(np.array(self._pixels[self.place(int(i))])).view(3, *self.sizes[i]) for i in indices]

    def place(self, index: int) -> slice:
        """Return the slice of the array that holds an image."""
        return slice(int(self._ends[index]) - int(3 * self.sizes[index].prod()), int(self._ends[index]))


class FileStore(Store):
    """Image files, decoded to RGB whenever they are read (`tapetum.data.images.decoding` describes how).

    Args:
        root: the folder, address or archive that names are relative to.
        names: relative paths with `/` between parts, in the order of the indices.
        shrink_to: largest length in pixels of the shorter side of an image when it is read; None keeps its size.
        contents: reads the files, in the order of `names`, if they are no files of this machine; None if they are.

    Raises:
        ValueError: a name is given twice; or later, when a file is first needed, it does not exist.
    """

    def __init__(
        self, root: Place | str, names: Sequence[str], shrink_to: int | None = None, contents: Contents | None = None
    ) -> None:
        self.root: Place = Path(root) if isinstance(root, str) else root
        self.shrink_to, self.contents = shrink_to, contents
        self.at_once = 1 if contents is None else contents.at_once  # more if each waits for another machine
        self.names = tuple(names)
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"image {Counter(self.names).most_common(1)[0][0]} is listed twice: list each file once")

    @property
    def folder(self) -> Path:
        """The folder that names are relative to; a ValueError if the images are no files of this machine."""
        if self.contents is not None or not isinstance(self.root, Path):
            raise ValueError(f"the images of {self.root} are no files in a folder here: unpack or copy them into one")
        return self.root

    def file(self, index: int) -> ImageFile:
        """Return one file: its path, or what reads it; as text, the name that errors give it."""
        if self.contents is None:
            return self.folder / self.names[index]
        return HeldFile(self.contents, index, f"{self.root}/{self.names[index]}")

    def files(self, indices: Iterable[int]) -> Iterator[ImageFile]:
        """Yield files; those on another machine are read ahead, `at_once` of them."""
        found = (self.file(int(index)) for index in indices)
        return in_turn(read_ahead, found, self.at_once) if self.at_once > 1 else found

    @property
    def paths(self) -> list[Path]:
        """Paths of the N files; errors are those of `folder`."""
        return [self.folder / name for name in self.names]

    @cached_property
    def file_stats(self) -> npt.NDArray[np.int64]:
        """(N, 2): size in bytes and time of last change in nanoseconds, or another stamp, of each file."""
        if self.contents is not None:
            return self.contents.stats
        stats = np.empty((len(self), 2), dtype=np.int64)
        for i, path in enumerate(map(self.folder.joinpath, self.names)):  # a million Paths at once take much memory
            try:
                stat = path.stat()
            except OSError as error:
                raise ValueError(f"image {path} cannot be opened ({error.strerror}): restore it") from error
            stats[i] = stat.st_size, stat.st_mtime_ns
        return stats

    @cached_property
    def fingerprint(self) -> str:
        """Hash of relative names, their order, file sizes in bytes, and `shrink_to`; contents are not read."""
        digest = hashlib.blake2b(digest_size=16)
        if self.shrink_to is not None:
            digest.update(f"shrunk to {self.shrink_to}\n".encode())
        for name, size in zip(self.names, self.file_stats[:, 0], strict=True):
            digest.update(f"{name}\0{size}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """(N, 2) heights and widths in pixels, read once from the files' headers (some 20,000 files a second)."""
        return shrunk_sizes(header_sizes(map(self.file, range(len(self))), self.at_once), self.shrink_to)

    def read(self, indices: Indices) -> list[Tensor]:
        """Read B uint8 tensors (3, h, w), each of its own size.

        Raises:
            ValueError: a file cannot be read; names it and the fix.
            Unreachable: its machine or archive cannot be read.
        """
        return [decode(file, self.shrink_to) for file in self.files(indices)]

    def each(self, indices: Indices) -> Iterator[Tensor | ValueError]:
        for file in self.files(indices):
            try:
                yield decode(file, self.shrink_to)
            except UnreadableImage as error:
                yield error

    def only(self, kept: Indices) -> FileStore:
        """Return a store of the images at the indices `kept`, in that order."""
        contents = None if self.contents is None else self.contents.only(kept)
        return FileStore(self.root, [self.names[int(i)] for i in kept], self.shrink_to, contents)


def shrunk(store: Store, shrink_to: int | None) -> Store:
    """Return a store that reads image files with a shorter side of at most `shrink_to` pixels; arrays are unchanged."""
    if isinstance(store, FileStore):
        store = FileStore(store.root, store.names, shrink_to, store.contents)
    return store
