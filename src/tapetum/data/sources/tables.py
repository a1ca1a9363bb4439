"""Tables in memory as pools: a data frame (pandas, Polars) or a Hugging Face `datasets.Dataset`.

They are recognised by their attributes, so none of these packages is imported or needed.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from tapetum.data.images.decoding import UnreadableImage, decode, upright_tensor
from tapetum.data.images.stores import Indices, Store
from tapetum.data.labels.labels import UNLABELLED, is_missing
from tapetum.data.sources.image_lists import listed_files

_IMAGE_COLUMNS = ("image", "img", "path", "file", "filename", "file_name", "image_path")
_LABEL_COLUMN = "label"


class RowStore(Store):
    """Images in the rows of a table, decoded when they are read.

    Args:
        row: returns the image of a row number: a Pillow image, an (H, W) or (H, W, C) uint8 array, the bytes or the
            path of a file, or Hugging Face's {"bytes": ..., "path": ...}.
        count: number of rows.
        names: of the images; None for row numbers.
        shrink_to: largest length in pixels of the shorter side of what files, or their bytes, hold; None keeps it.
    """

    def __init__(
        self,
        row: Callable[[int], Any],
        count: int,
        names: Sequence[str] | None = None,
        shrink_to: int | None = None,
    ) -> None:
        self._row, self._shrink_to = row, shrink_to
        self._called = [f"in row {i}" for i in range(count)] if names is None else names
        self.names = tuple(str(i) for i in range(count)) if names is None else tuple(names)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all pixels; computing it decodes every image once."""
        digest = hashlib.blake2b(digest_size=16)
        for i in range(len(self)):
            pixels = self._decode(i).numpy()
            digest.update(repr(pixels.shape).encode() + pixels.tobytes())
        return digest.hexdigest()

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """(N, 2) heights and widths in pixels; computing them decodes every image once."""
        sizes = [tuple(self._decode(i).shape[1:]) for i in range(len(self))]
        return np.array(sizes, dtype=np.int64).reshape(-1, 2)

    def read(self, indices: Indices) -> list[Tensor]:
        """Read B uint8 tensors (3, h, w), each of its own size.

        Raises:
            ValueError: a row holds no image or a damaged one; names the row.
        """
        return [self._decode(int(i)) for i in indices]

    def _decode(self, index: int) -> Tensor:
        try:
            return _to_tensor(self._row(index), self._called[index], self._shrink_to)
        except UnreadableImage:
            raise
        except Exception as error:  # a table's own decoder may raise any type
            raise UnreadableImage(self._called[index], error) from error


@dataclass(frozen=True)
class _Bytes:
    """An image file in memory."""

    content: bytes
    called: str

    def read(self, most: int | None = None) -> bytes:
        return self.content[:most]

    def __str__(self) -> str:
        return self.called


def _to_tensor(value: Any, called: str, shrink_to: int | None) -> Tensor:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, (bytes, bytearray)):
        return decode(_Bytes(bytes(value), called), shrink_to)
    if isinstance(value, (str, os.PathLike)):
        return decode(Path(value), shrink_to)
    if isinstance(value, Image.Image):
        return upright_tensor(value)
    pixels = np.asarray(value)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise ValueError(f"it holds {pixels.dtype} of shape {pixels.shape}, not an image")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return upright_tensor(Image.fromarray(pixels))


def is_table(thing: Any) -> bool:
    """Return whether something is a data frame or a data set with named columns."""
    return hasattr(thing, "__getitem__") and (hasattr(thing, "column_names") or hasattr(thing, "columns"))


def _columns(table: Any) -> list[str]:
    return [str(name) for name in (table.column_names if hasattr(table, "column_names") else table.columns)]


def label_column(table: Any, labels: Any) -> str | None:
    """Return the column of labels: the one that `labels` names or, if that is None, "label"; None if there is none.

    Raises:
        ValueError: `labels` is a string that names neither a column nor a file.
    """
    columns = _columns(table)
    if labels is None:
        return _LABEL_COLUMN if _LABEL_COLUMN in columns else None
    if not isinstance(labels, str):
        return None
    if labels not in columns and not Path(labels).expanduser().exists():
        raise ValueError(f"labels is {labels!r}: the table has no such column, only {', '.join(columns)}: name one")
    return labels if labels in columns else None


def images_of_table(table: Any) -> Store:
    """Open the images of a table: as files if the image column holds paths, else decoded from the rows.

    Raises:
        ValueError: the table is empty, or no column has a name used for images.
    """
    columns = _columns(table)
    column = next((name for name in _IMAGE_COLUMNS if name in columns), None)
    if column is None:
        raise ValueError(
            f"the table has the columns {', '.join(columns) or '(none)'}: rename the column of images or paths "
            f"to one of {', '.join(_IMAGE_COLUMNS)}"
        )
    if len(table) == 0:
        raise ValueError("the table has no rows: give one row per image")
    if hasattr(table, "column_names"):  # row by row, because a column of decoded images would fill the memory
        return _rows(lambda i: table[i][column], len(table), column)
    values = list(table[column])
    return _rows(values.__getitem__, len(values), column)


def _rows(row: Callable[[int], Any], count: int, column: str) -> Store:
    if isinstance(row(0), (str, os.PathLike)):
        return listed_files(((f"column {column}, row {i}", row(i)) for i in range(count)), Path.cwd())
    return RowStore(row, count)


def labels_of_table(table: Any, column: str) -> list[str | None]:
    """Return the class of each row; None for an unlabelled row: a missing value, empty text, or class number -1.

    Raises:
        ValueError: a value is neither text nor a whole number, or is no valid class number; names row and value.
    """
    feature = table.features.get(column) if hasattr(table, "features") else None
    names = getattr(feature, "names", None)
    return [class_name(value, names, f"column {column}, row {i}") for i, value in enumerate(table[column])]


def class_name(value: Any, names: Sequence[str] | None, where: str) -> str | None:
    """Return the class that a cell of a table means; errors, and None, as for `labels_of_table`."""
    if isinstance(value, str):
        return value.strip() or None
    if is_missing(value):
        return None
    try:
        number = int(value)  # missing values turn a column of whole numbers into floats
        if number != value or number < -1 or (names is not None and number >= len(names)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        known = "text, a whole number of 0 or more" if names is None else f"0..{len(names) - 1}"
        raise ValueError(f"{where}: the label is {value!r}: use {known}, or -1 for no label") from None
    if number == UNLABELLED:
        return None
    return str(number) if names is None else names[number]
