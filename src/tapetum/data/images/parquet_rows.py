"""Images in the rows of Parquet files: a column of bytes, or Hugging Face's struct of `bytes` and `path`.

A row is found by its row group and its place there. A group is read whole, because Parquet compresses it so; the last
few are kept in memory. It is the door to pyarrow for images.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tapetum.system.strangers import short_reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapetum.data.images.contents import Blob

_IMAGES = ("image", "img", "image_bytes", "bytes", "jpg", "jpeg", "png", "webp")
"""Names of columns of bytes that count as images, if the file does not say which one holds them."""
_KEPT_BYTES = 2**28

_kept: OrderedDict[tuple[Blob, int], Any] = OrderedDict()
_lock = threading.Lock()


@contextmanager
def open_parquet(blob: Blob) -> Iterator[Any]:
    """Open a file as a `pyarrow.parquet.ParquetFile`.

    Raises:
        ValueError: it is damaged, also while it is read inside the `with`, or pyarrow is missing.
        Unreachable: it cannot be read.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ValueError(f"{blob.place} needs pyarrow: install it with pip install 'tapetum[parquet]'") from error
    with blob.open() as file:
        try:
            yield ParquetFile(file, pre_buffer=False)
        except ArrowException as error:
            raise ValueError(
                f"{blob.place} is no whole Parquet file ({short_reason(error)}): fetch it again"
            ) from error


def features_of(schema: Any) -> Mapping[str, Any]:
    """Return what Hugging Face's library wrote about each column of a schema; nothing if it did not."""
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {name: about for name, about in found.items() if isinstance(about, dict)} if isinstance(found, dict) else {}


def image_column(schema: Any, where: object) -> tuple[str, bool]:
    """Return the name of the column of images, and whether its rows are structs of `bytes` and `path`.

    Raises:
        ValueError: there is none, or nothing tells which it is.
    """
    import pyarrow

    structs, plain = [], []
    for field in schema:
        kind = field.type
        if pyarrow.types.is_struct(kind) and "bytes" in (inner.name for inner in kind):
            structs.append(field.name)
        elif pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
            plain.append(field.name)
    described = [n for n, about in features_of(schema).items() if about.get("_type") == "Image"]
    for candidates in ([n for n in described if n in structs + plain], [n for n in structs if n in _IMAGES], structs):
        if len(candidates) == 1:
            return candidates[0], candidates[0] in structs
    named = [name for name in plain if name.lower() in _IMAGES]
    if len(named) == 1:
        return named[0], False
    raise ValueError(
        f"{where} has the columns {', '.join(schema.names)}: give one column of images, called image, with their bytes"
    )


def read_row(blob: Blob, group: int, row: int) -> bytes:
    """Read the bytes of one image.

    Raises:
        ValueError: the row holds none, or the file is damaged.
        Unreachable: the file cannot be read.
    """
    with _lock:
        column = _kept.get((blob, group))
        if column is None:
            column = _read_group(blob, group)
            while _kept and sum(kept.nbytes for kept in _kept.values()) + column.nbytes > _KEPT_BYTES:
                _kept.popitem(last=False)
            _kept[blob, group] = column
        _kept.move_to_end((blob, group))
    content: bytes | None = column[row].as_py()
    if content is None:
        raise ValueError("its row holds no bytes")
    return content


def _read_group(blob: Blob, group: int) -> Any:
    import pyarrow.compute

    with open_parquet(blob) as file:
        name, is_struct = image_column(file.schema_arrow, blob.place)
        columns = [f"{name}.bytes"] if is_struct else [name]
        # Loader processes are forks, in which pyarrow's threads do not run.
        column = file.read_row_group(group, columns=columns, use_threads=False).column(0)
    return pyarrow.compute.struct_field(column, "bytes") if is_struct else column
